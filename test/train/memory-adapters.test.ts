/** Estimates for models that already have adapters, and for ranks that depend on the values. */
import test from "ava";

import {
  estimate,
  finetune,
  loadModel,
  lora,
  memory,
  nn,
  trim,
  type CausalLM,
  type FinetuneOptions,
} from "../../src/index.js";
import { session } from "../../src/native/binding.js";
import { atRest } from "../at-rest.js";
import { temporary } from "../hashed.js";
import { runOf, SETTINGS, type Setting } from "./memory-settings.js";

function named(name: string): Promise<FinetuneOptions> {
  return runOf(SETTINGS.find((one) => one.name === name) as Setting, "cpu");
}

type Adapting = (model: CausalLM) => Promise<void>;

/** Models with adapters, as users have them when they train another one. */
const CARRIED: Record<string, Adapting> = {
  "an active adapter": async (model) => {
    await lora.inject(model, { r: 48, targetModules: "all-linear", name: "first" });
  },
  "a trainable adapter": async (model) => {
    await lora.inject(model, { r: 32, targetModules: "all-linear", name: "first" });
    lora.setAdapter(model, "first", { trainable: true });
  },
  "several adapters, one of them active": async (model) => {
    await lora.inject(model, { r: 16, targetModules: ["q_proj"], useDora: true, name: "dora" });
    await lora.inject(model, { r: 24, targetModules: "all-linear", name: "other", loraBias: true });
    lora.setAdapter(model, "other");
  },
  "an adapter initialised from the weight, with copies": async (model) => {
    const more = { initLoraWeights: "pissa", modulesToSave: ["embed_tokens"] } as const;
    await lora.inject(model, { r: 8, targetModules: ["down_proj"], name: "first", ...more });
  },
  "layers constructed by hand": (model) => {
    for (const [, module] of [...model.namedModules()]) {
      for (const [name, child] of [...module.children()])
        if (name === "up_proj" && child instanceof nn.Linear)
          module.replaceChild(name, lora.Linear.fromBase(child, { r: 40, mergeWeights: false }));
    }
    return Promise.resolve();
  },
  "a merged adapter": async (model) => {
    await lora.inject(model, { r: 4, targetModules: ["gate_proj"], name: "first" });
    lora.merge(model);
  },
};

for (const [what, adapt] of Object.entries(CARRIED)) {
  test.serial(`a model that carries ${what}: the estimated peak includes its adapters`, async (t) => {
    const { dtype: _, ...options } = await named("long blocks");
    const peaks: { told: number; held: number }[] = [];
    for (const carries of [false, true]) {
      trim("cpu");
      const before = (await atRest("cpu")).live;
      const model = await loadModel<"causal-lm">(options.model as string, { device: "cpu" });
      if (carries) await adapt(model);
      const run = { ...options, model, lora: { r: 8, name: "mine" } };
      const first = await estimate(run);
      const state = { tensors: memory("cpu").tensors, adapters: lora.adapters(model) };
      const told = await estimate(run);
      t.is(told.peakBytes, first.peakBytes);
      t.deepEqual({ tensors: memory("cpu").tensors, adapters: lora.adapters(model) }, state);
      trim("cpu");
      session().restartPeak("cpu");
      await finetune({ ...run, output: temporary() }).result;
      const held = memory("cpu").peak - before;
      peaks.push({ told: told.peakBytes, held });
      model.dispose();
    }
    const [plain, adapted] = peaks as [(typeof peaks)[0], (typeof peaks)[0]];
    t.log(JSON.stringify(peaks));
    for (const { told, held } of peaks) t.is(told, held);
    t.true(adapted.held > plain.held);
  });
}

test.serial("the ranks that EVA distributes need no more memory than estimated", async (t) => {
  const options = await named("long blocks");
  for (const evaConfig of [{ rho: 2 }, { rho: 1 }, { rho: 3 }]) {
    const lora = { r: 8, initLoraWeights: "eva", evaConfig } as const;
    const told = await estimate({ ...options, lora });
    const uniform = await estimate({ ...options, lora: { r: 8 } });
    trim("cpu");
    session().restartPeak("cpu");
    const before = memory("cpu").reserved;
    await finetune({ ...options, lora, output: temporary() }).result;
    const held = memory("cpu").peak - before;
    t.log(
      `rho ${evaConfig.rho}: estimated ${told.peakBytes}, measured ${held}, with the uniform rank ${uniform.peakBytes}`,
    );
    t.true(held <= told.peakBytes);
    t.true(told.peakBytes < 1.1 * held);
    if (evaConfig.rho === 1) t.is(told.adapters, uniform.adapters);
    else t.true(told.adapters > uniform.adapters);
  }
});
