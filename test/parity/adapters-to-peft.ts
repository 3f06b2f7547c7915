/**
 * What lowrank saves, as loaded by transformers and PEFT (README.md): `tsx adapters-to-peft.ts PYTHON`, where PYTHON is the
 * interpreter of an environment with requirements.txt. Prints how far the logits are apart, and fails above 1e-5 or
 * where a key differs from PEFT's.
 */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { loadModel, lora, noGrad, saveModel, scope, tensor, type CausalLM } from "../../src/index.js";
import { adapterState } from "../../src/lora/state.js";
import { goldenModel, hashed, temporary } from "../hashed.js";
import { error, goldens, onHost, type Golden } from "./goldens.js";

const [python] = process.argv.slice(2);
if (python === undefined) throw new Error("usage: tsx adapters-to-peft.ts PYTHON");

const cases: Record<string, lora.InjectOptions> = {
  "q_proj and v_proj": { r: 2, loraAlpha: 6, targetModules: ["q_proj", "v_proj"] },
  "all-linear": { r: 3, loraAlpha: 5, targetModules: "all-linear" },
  "bias all": { r: 2, loraAlpha: 6, targetModules: ["q_proj", "v_proj"], bias: "all" },
  "bias lora_only": { r: 2, loraAlpha: 6, targetModules: ["q_proj", "v_proj"], bias: "lora_only" },
  "bias all, modulesToSave o_proj": {
    r: 2,
    targetModules: ["q_proj", "v_proj"],
    bias: "all",
    modulesToSave: ["o_proj"],
  },
  "modulesToSave lm_head": { r: 2, loraAlpha: 6, modulesToSave: ["lm_head"] },
  "modulesToSave norm and embed_tokens": { r: 2, loraAlpha: 6, modulesToSave: ["norm", "embed_tokens"] },
  useRslora: { r: 4, loraAlpha: 6, targetModules: ["q_proj", "down_proj"], useRslora: true },
  embed_tokens: { r: 2, loraAlpha: 5, targetModules: ["embed_tokens", "q_proj"] },
  "embed_tokens by its path": { r: 2, loraAlpha: 5, targetModules: ["model.embed_tokens", "q_proj"] },
  lm_head: { r: 2, loraAlpha: 5, targetModules: ".*(lm_head|k_proj)" },
};

const ids = (await onHost(join(goldens, "peft", "rslora", "golden.safetensors")))["ids"] as Golden;
const [B, T] = ids.shape as [number, number];
const work = temporary();
writeFileSync(
  join(work, "ids.json"),
  JSON.stringify(Array.from({ length: B }, (_, b) => [...ids.data.subarray(b * T, (b + 1) * T)])),
);

async function logits(model: CausalLM): Promise<Float32Array> {
  const out = scope(
    () => model.forward(tensor(ids.data, { shape: ids.shape, dtype: "i32", device: "cpu" })).logits,
  );
  return (await out.data()) as Float32Array;
}

/** How far transformers' logits are from `ours`, with an adapter's folder or `-`. */
function apart(ours: Float32Array, model: string, adapter: string): number {
  const out = join(work, "out.json");
  const script = fileURLToPath(new URL("adapter_logits.py", import.meta.url));
  const ran = spawnSync(
    python as string,
    ["-W", "always", script, model, adapter, join(work, "ids.json"), out],
    { encoding: "utf8" },
  );
  if (ran.status !== 0) throw new Error(ran.stderr);
  const { logits } = JSON.parse(readFileSync(out, "utf8")) as { logits: number[][][] };
  // But for the bar of progress.
  const said = ran.stderr.split("\n").filter((line) => line !== "" && !line.includes("Loading weights"));
  if (adapter === "-" && said.length > 0)
    throw new Error(`${model} does not load without a word: ${said.join("\n")}`);
  return error(ours, logits.flat(2));
}

let worst = 0;
function report(name: string, off: number): void {
  worst = Math.max(worst, off);
  process.stdout.write(`${off.toExponential(1)}  ${name}\n`);
}

for (const variant of ["untied-llama3", "tied"]) {
  const source = goldenModel(join(goldens, `llama-${variant}`));
  const plain = await loadModel(source, { device: "cpu" });
  const saved = join(work, variant);
  await saveModel(plain, saved);
  report(`${variant}: saveModel`, apart(await logits(plain), saved, "-"));
  await saveModel(plain, `${saved}-sharded`, { maxShardBytes: 50_000 });
  report(`${variant}: saveModel in shards`, apart(await logits(plain), `${saved}-sharded`, "-"));
  plain.dispose();
  for (const [name, options] of Object.entries(cases)) {
    if (variant === "tied" && !/embed_tokens$|all-linear/.test(name)) continue;
    const model = await loadModel(saved, { device: "cpu" });
    const base = await logits(model);
    await lora.inject(model, options);
    noGrad(() =>
      scope(() => {
        for (const [key, one] of adapterState(model, "default")) {
          if (!key.endsWith(".base_layer.weight"))
            one.copy(tensor(hashed(key, one.shape), { shape: one.shape, device: "cpu" }));
        }
      }),
    );
    const ours = await logits(model);
    if (error(ours, base) < 1e-3) throw new Error(`${name}: the adapter does nothing`);
    const folder = join(work, `${variant} ${name}`);
    await lora.saveAdapter(model, folder);
    report(`${variant}: ${name}`, apart(ours, saved, folder));
    await lora.mergeAndUnload(model);
    await saveModel(model, `${folder} merged`);
    report(`${variant}: ${name}, merged by lowrank`, apart(ours, `${folder} merged`, "-"));
    model.dispose();
  }
}
if (!(worst < 1e-5)) throw new Error(`the furthest is off by ${worst}`);
