/** A run over a model that already has adapters trains a new one and leaves the others unchanged. */
import test from "ava";

import { finetune, loadModel, lora, type CausalLM, type FinetuneOptions } from "../../src/index.js";
import { LoRALayer } from "../../src/lora/layers/layer.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { adapterBytes, quick } from "./quick.js";

const given = { model: tinyModel(), data: tinyData() };
const own = { r: 2, name: "mine", targetModules: "all-linear" } as const;

function options(model: CausalLM | string, more: Partial<FinetuneOptions> = {}): FinetuneOptions {
  return quick({ ...given, model: model as string }, "cpu", {
    lora: own,
    steps: 6,
    output: temporary(),
    ...more,
  });
}

/** Returns a model with an active, trainable adapter. */
async function carrying(): Promise<CausalLM> {
  const model = await loadModel<"causal-lm">(given.model, { device: "cpu" });
  await lora.inject(model, { r: 4, targetModules: "all-linear", name: "first", initLoraWeights: false });
  return model;
}

/** Returns the values of an adapter, which of them are trainable, and the layers in which it is active. */
async function stateOf(model: CausalLM, name: string): Promise<unknown[]> {
  const all: unknown[] = [];
  for (const [path, layer] of model.namedModules()) {
    if (!(layer instanceof LoRALayer)) continue;
    const { loraA, loraB } = layer.findAdapter(name);
    const active = layer.active.filter((one) => one.name === name);
    all.push([path, await loraA.data(), await loraB.data(), loraA.requiresGrad, active]);
  }
  return all;
}

test.serial("the new adapter equals one trained on the bare model, and only it is active", async (t) => {
  const alone = await finetune(options(given.model)).result;
  const model = await carrying();
  const before = (await stateOf(model, "first")) as [string, Float32Array, Float32Array][];
  const { adapter } = await finetune(options(model)).result;
  t.true(adapterBytes(adapter).equals(adapterBytes(alone.adapter)));
  const after = (await stateOf(model, "first")) as [string, Float32Array, Float32Array, boolean, unknown[]][];
  for (const [i, [path, a, b, trained, active]] of after.entries()) {
    t.deepEqual([path, a, b], before[i]?.slice(0, 3));
    t.deepEqual([trained, active], [false, []]);
  }
  for (const one of (await stateOf(model, "mine")) as [
    string,
    Float32Array,
    Float32Array,
    boolean,
    unknown[],
  ][])
    t.deepEqual([one[3], one[4]], [true, [{ name: "mine", weight: 1 }]]);
  model.dispose();
});

test.serial("a failed run restores the active adapters", async (t) => {
  const model = await carrying();
  const before = await stateOf(model, "first");
  await t.throwsAsync(finetune(options(model, { optimizer: { lr: 1e30 }, steps: 50 })).result, {
    code: "ERR_NOT_FINITE",
  });
  t.deepEqual(lora.adapters(model), ["first"]);
  t.deepEqual(await stateOf(model, "first"), before);
  model.dispose();
});
