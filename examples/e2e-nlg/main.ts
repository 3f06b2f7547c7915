/**
 * LoRA on GPT-2 for the E2E challenge, as in section 5.4 of the paper (Hu et al. 2021).
 *
 *   npx tsx examples/e2e-nlg/main.ts [--model FOLDER] [--data train.csv] [--eval-data dev.csv] [--output FILE] …
 */
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { GPT2LMHeadModel, loadModel, lora, manualSeed, safetensors, type Device } from "lowrank";
import { exampleOf, readPairs, type Example } from "./data.js";
import { adapt, drawnGPT2, SIZES } from "./model.js";
import { train } from "./train.js";

const { values } = parseArgs({
  options: {
    /** A GPT-2 folder; default: random weights, with bytes as tokens. */
    model: { type: "string" },
    /** Size of a model with random weights: tiny, small, medium or large. */
    size: { type: "string", default: "small" },
    data: { type: "string", default: fileURLToPath(new URL("sample.csv", import.meta.url)) },
    "eval-data": { type: "string" },
    output: { type: "string", default: "e2e-lora.safetensors" },
    epochs: { type: "string", default: "5" },
    "batch-size": { type: "string", default: "8" },
    lr: { type: "string", default: "2e-4" },
    warmup: { type: "string", default: "500" },
    "max-length": { type: "string", default: "512" },
    seed: { type: "string", default: "0" },
    device: { type: "string", default: "auto" },
  },
});

const seed = Number(values.seed);
const device = values.device as Device;
manualSeed(seed);
const size = SIZES[values.size as keyof typeof SIZES];
if (size === undefined) throw new Error(`--size is ${Object.keys(SIZES).join(", ")}, not ${values.size}`);
const model =
  values.model === undefined
    ? drawnGPT2(device, size)
    : await loadModel(values.model, { task: "causal-lm", device });
if (!(model instanceof GPT2LMHeadModel)) throw new Error(`${values.model}: is no GPT-2`);
console.log(`${adapt(model).toLocaleString("en-US")} weights train, on ${model.device}`);

async function read(file: string): Promise<Example[]> {
  const pairs = readPairs(await readFile(file, "utf8"));
  const rows = pairs.map((pair) => exampleOf(model, pair, Number(values["max-length"])));
  return rows.filter((row) => row.trained > 0);
}

const recipe = {
  epochs: Number(values.epochs),
  batchSize: Number(values["batch-size"]),
  lr: Number(values.lr),
  warmup: Number(values.warmup),
  seed,
};
const held = values["eval-data"];
const rows = await read(values.data);
const run = train(model, rows, recipe, held === undefined ? undefined : await read(held));
for await (const event of run) {
  if (event.type === "step") console.log(`step ${event.step}/${event.steps}  loss ${event.loss.toFixed(4)}`);
  if (event.type === "eval") console.log(`step ${event.step}: held-out loss ${event.loss.toFixed(4)}`);
}
await run.result;
await safetensors.save(values.output, lora.loraStateDict(model));
console.log(`adapter ${values.output}`);
model.dispose();
