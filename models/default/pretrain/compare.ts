/**
 * Compares adapting the embedded model with training all of its weights, on the same batches for the same number of steps.
 * Full training tries several learning rates and uses the best one.
 *
 *   npx tsx models/default/pretrain/compare.ts [--epochs N] [--batch-size N] [--grad-accum N] [--rank N] [--lr 2e-3,…]
 */
import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";

import { loadModel, lora, manualSeed, optim, scope, tensor, type CausalLM } from "../../../src/index.js";
import { BatchPlan } from "../../../src/data/batches.js";
import { keepTrained } from "../../../src/data/examples.js";
import { readData } from "../../../src/data/read.js";
import { countElements } from "../../../src/lora/inject/inject.js";
import { locateDefaultData, locateDefaultHeldOut, locateDefaultModel } from "../../../src/models/default.js";
import { evaluate } from "../../../src/train/evaluate.js";
import { LanguageModelling } from "../../../src/train/objective.js";
import { readTokenisation } from "../../../src/train/prepare.js";

const { values } = parseArgs({
  options: {
    epochs: { type: "string", default: "1" },
    "batch-size": { type: "string", default: "4" },
    "grad-accum": { type: "string", default: "2" },
    rank: { type: "string", default: "16" },
    lr: { type: "string", default: "2e-3" },
    "full-lr": { type: "string", default: "5e-4,1e-3,2e-3" },
  },
});
const batchSize = Number(values["batch-size"]);
const gradientAccumulation = Number(values["grad-accum"]);

async function data(model: CausalLM) {
  const objective = new LanguageModelling(model, readTokenisation(model, 256), { trainOn: "all" });
  const { tokenizer, padTokenId } = objective.tokenisation;
  const read = async (file: string) =>
    keepTrained(
      await objective.createExamples(await readData(file), undefined),
      file,
      objective.tokenisation,
    );
  const train = await read(locateDefaultData());
  const held = await read(locateDefaultHeldOut());
  const text = await readFile(locateDefaultHeldOut(), "utf8");
  const tokensPerByte = tokenizer.encode(text, { addSpecialTokens: false }).length / Buffer.byteLength(text);
  const plan = new BatchPlan(train, {
    batchSize,
    gradientAccumulation,
    seed: 0,
    padTokenId,
    epochs: Number(values.epochs),
  });
  return { objective, plan, held, tokensPerByte };
}

/** Trains the parameters that require gradients; returns the held-out loss before and after. */
async function run(
  full: boolean,
  lr: number,
): Promise<{ before: number; after: number; share: number; tokensPerByte: number; steps: number }> {
  const model = await loadModel(locateDefaultModel(), { task: "causal-lm", device: "cpu", dtype: "f32" });
  manualSeed(0);
  if (full) for (const weight of Object.values(model.stateDict())) weight.requiresGrad = true;
  else
    await lora.inject(model, {
      r: Number(values.rank),
      loraAlpha: 2 * Number(values.rank),
      targetModules: "all-linear",
    });
  const { plan, held, objective, tokensPerByte } = await data(model);
  const before = await evaluate(model, objective, held, { batchSize: 8 });
  const { trainable, total } = countElements(model);
  model.train();
  const parameters = [...new Set(Object.values(model.stateDict()))].filter((p) => p.requiresGrad);
  const optimizer = new optim.AdamW(parameters, { lr, weightDecay: 0.01 });
  const factor = optim.schedule.linear({ warmup: Math.ceil(0.03 * plan.steps), total: plan.steps });
  for (let step = 0; step < plan.steps; step++) {
    const { batches, trained } = plan.listBatchesAt(step);
    for (const group of optimizer.groups) group.lr = lr * factor(step);
    for (const batch of batches) {
      scope(() => {
        const ids = tensor(batch.ids, { shape: batch.shape, device: "cpu" });
        model
          .loss(ids, batch.labels, { reduction: "sum" })
          .mul(1 / trained)
          .backward();
      });
    }
    const norm = optimizer.stepClipped(1);
    optimizer.zeroGrad();
    await norm.item();
    norm.dispose();
  }
  const after = await evaluate(model, objective, held, { batchSize: 8 });
  optimizer.dispose();
  model.dispose();
  return {
    before: before.loss,
    after: after.loss,
    share: trainable / total,
    tokensPerByte,
    steps: plan.steps,
  };
}

function told(name: string, r: Awaited<ReturnType<typeof run>>): void {
  const bits = (loss: number): string => ((loss / Math.LN2) * r.tokensPerByte).toFixed(3);
  console.log(
    `${name}: ${r.steps} steps, ${(100 * r.share).toFixed(1)}% trained, held-out loss ${r.before.toFixed(4)} -> ${r.after.toFixed(4)} ` +
      `(−${(100 * (1 - r.after / r.before)).toFixed(1)}%), bits per byte ${bits(r.before)} -> ${bits(r.after)}`,
  );
}

let adapted: Awaited<ReturnType<typeof run>> | undefined;
for (const lr of values.lr.split(",").map(Number)) {
  const result = await run(false, lr);
  told(`adapter, lr ${lr}`, result);
  if (adapted === undefined || result.after < adapted.after) adapted = result;
}
let best: Awaited<ReturnType<typeof run>> | undefined;
for (const lr of values["full-lr"].split(",").filter(Boolean).map(Number)) {
  const result = await run(true, lr);
  told(`all weights, lr ${lr}`, result);
  if (best === undefined || result.after < best.after) best = result;
}
if (adapted !== undefined && best !== undefined) {
  const share = (adapted.before - adapted.after) / (best.before - best.after);
  console.log(`the adapter gains ${(100 * share).toFixed(1)}% of what all weights gain`);
}
