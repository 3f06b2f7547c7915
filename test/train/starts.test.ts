/** Runs with DoRA, LoRA+ or an initialisation from weights or data: they learn, and resume to the same bits. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { finetune, type FinetuneOptions } from "../../src/index.js";
import { tinyData, tinyModel } from "../hashed.js";
import { adapterBytes, collect, quick } from "./quick.js";

const given = { model: tinyModel(), data: tinyData() };

const RUNS: Record<string, Partial<FinetuneOptions>> = {
  pissa: { lora: { r: 4, initLoraWeights: "pissa" }, optimizer: { lr: 1e-3 } },
  "olora with rank-stabilised scaling": {
    lora: { r: 4, initLoraWeights: "olora", useRslora: true },
    optimizer: { lr: 1e-3 },
  },
  "eva, from the run's own rows": { lora: { r: 4, initLoraWeights: "eva" } },
  "dora by LoRA+": {
    lora: { r: 4, useDora: true, bias: "lora_only", modulesToSave: ["norm"] },
    optimizer: { lr: 1e-3, loraPlusRatio: 4 },
  },
  "trained tokens": { lora: { r: 4, trainableTokenIndices: [3, 40] } },
};

for (const [name, more] of Object.entries(RUNS)) {
  test.serial(`${name}: learns, and a resumed run equals an uninterrupted one`, async (t) => {
    const options = (): FinetuneOptions => quick(given, "cpu", { steps: 8, evalSplit: 0.2, ...more });
    const whole = options();
    const events = await collect(finetune(whole));
    const evals = events.filter((event) => event.type === "eval");
    t.true((evals.at(-1)?.loss ?? Infinity) < (evals[0]?.loss ?? 0), JSON.stringify(evals));

    const cut = { ...options(), saveEvery: 3 };
    const run = finetune(cut);
    for await (const event of run) if (event.type === "step" && event.step === 3) void run.stop();
    await run.result;
    await finetune({ ...cut, resume: true }).result;
    t.true(adapterBytes(whole.output as string).equals(adapterBytes(cut.output as string)));
    const config = (folder: string): string => readFileSync(join(folder, "adapter_config.json"), "utf8");
    t.is(config(cut.output as string), config(whole.output as string));
  });
}
