/** Adapters of a whole model: their copies of modules, several at once, and models saved after merging. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";
import { loadModel, lora, noGrad, randn, saveModel, scope, tensor, type CausalLM } from "../../src/index.js";
import { collectAdapterState } from "../../src/lora/formats/state.js";
import { atRest } from "../at-rest.js";
import { testDevices } from "../devices.js";
import { goldenModel, temporary } from "../hashed.js";

const golden = (name: string): string => fileURLToPath(new URL(`../parity/goldens/${name}`, import.meta.url));
const untied = goldenModel(golden("llama-untied-llama3"));
const tied = goldenModel(golden("llama-tied"));

async function logits(model: CausalLM): Promise<Float32Array> {
  const ids = Int32Array.from({ length: 12 }, (_, i) => (i * 37) % 97);
  const out = scope(() => model.forward(tensor(ids, { shape: [2, 6], device: model.device })).logits);
  const data = (await out.data()) as Float32Array;
  out.dispose();
  return data;
}

/** Randomises every tensor of an adapter. */
function shake(model: CausalLM, name = "default"): void {
  noGrad(() =>
    scope(() => {
      for (const [key, one] of collectAdapterState(model, name)) {
        if (!key.endsWith("base_layer.weight")) one.copy(randn(one.shape, { device: model.device }).mul(0.3));
      }
    }),
  );
}

function apart(a: Float32Array, b: Float32Array): number {
  const largest = a.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
  return a.reduce((m, v, i) => Math.max(m, Math.abs(v - (b[i] as number))), 0) / largest;
}

const everything: lora.InjectOptions = {
  r: 2,
  targetModules: ["q_proj", "v_proj"],
  bias: "all",
  modulesToSave: ["o_proj", "norm"],
};

for (const device of testDevices()) {
  // Serial, since bytes are counted.
  test.serial(`on ${device} a saved model loads with the same tensors and logits`, async (t) => {
    for (const from of [untied, tied]) {
      const model = await loadModel<"causal-lm">(from, { device });
      const folder = join(temporary(), "saved");
      await saveModel(model, folder);
      const again = await loadModel<"causal-lm">(folder, { device });
      t.deepEqual(Object.keys(again.stateDict()), Object.keys(model.stateDict()));
      t.deepEqual(await logits(again), await logits(model));
      t.is(again.lm_head.weight === again.getInputEmbedding().weight, from === tied);
      model.dispose();
      again.dispose();
    }
  });

  test.serial(`on ${device} an embedding trained without its tied head is saved separately`, async (t) => {
    for (const options of [
      { modulesToSave: ["embed_tokens"] },
      { targetModules: ["embed_tokens"] },
      { targetModules: ["lm_head"] },
    ]) {
      const model = await loadModel<"causal-lm">(tied, { device });
      await lora.inject(model, { r: 2, ...options });
      shake(model);
      const adapted = await logits(model);
      await t.throwsAsync(saveModel(model, join(temporary(), "no")), {
        code: "ERR_OPTION",
        message: /adapters \(default\)/,
      });
      await lora.mergeAndUnload(model);
      const merged = await logits(model);
      t.true(apart(adapted, merged) < 1e-5);
      const folder = join(temporary(), "merged");
      await saveModel(model, folder);
      t.is(
        (JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as { tie_word_embeddings: boolean })
          .tie_word_embeddings,
        false,
      );
      const again = await loadModel<"causal-lm">(folder, { device });
      t.deepEqual(await logits(again), merged);
      model.dispose();
      again.dispose();
    }
  });

  test.serial(`on ${device} each adapter has its own copies of the base's modules and biases`, async (t) => {
    const model = await loadModel<"causal-lm">(untied, { device });
    const [base, bytes] = [await logits(model), (await atRest(device)).live];
    await lora.inject(model, { ...everything, name: "a" });
    t.deepEqual(await logits(model), base);
    shake(model, "a");
    const a = await logits(model);
    await lora.inject(model, { ...everything, name: "b" });
    t.deepEqual(await logits(model), a, "a second adapter doesn't count until it is chosen");
    lora.setAdapter(model, "b");
    t.deepEqual(await logits(model), base, "it starts from the base, not from the first");
    shake(model, "b");
    const b = await logits(model);
    lora.setAdapter(model, "a");
    t.deepEqual(await logits(model), a);
    lora.setAdapter(model, "b");
    t.deepEqual(await logits(model), b);
    t.deepEqual(await lora.withoutAdapters(model, () => logits(model)), base);
    lora.deleteAdapter(model, "a");
    t.deepEqual(await logits(model), b);
    t.deepEqual(await logits(lora.unload(model)), base);
    t.is((await atRest(device)).live, bytes);
    model.dispose();
  });

  test.serial(`on ${device} adapters of different layers are active together`, async (t) => {
    const model = await loadModel<"causal-lm">(untied, { device });
    const base = await logits(model);
    await lora.inject(model, { r: 2, targetModules: ["q_proj"], name: "q" });
    shake(model, "q");
    const q = await logits(model);
    await lora.inject(model, {
      r: 2,
      targetModules: ["up_proj"],
      bias: "lora_only",
      modulesToSave: ["norm"],
      name: "up",
      active: true,
    });
    shake(model, "up");
    const both = await logits(model);
    t.true(apart(q, both) > 1e-3);
    t.deepEqual(await lora.withoutAdapters(model, () => logits(model)), base);
    await lora.inject(model, { r: 2, targetModules: ["v_proj"], name: "v" });
    t.deepEqual(await logits(model), both);
    lora.deleteAdapter(model, "up");
    t.deepEqual(await logits(model), q);
    model.dispose();
  });

  test.serial(
    `on ${device} a further adapter leaves merged ones merged; mergeAndUnload frees the rest`,
    async (t) => {
      const model = await loadModel<"causal-lm">(untied, { device });
      await logits(model); // The first run creates the rotary tables.
      const bytes = (await atRest(device)).live;
      const size = [...model.parameters()].reduce((n, one) => n + one.size, 0);
      await lora.inject(model, { ...everything, name: "a" });
      shake(model, "a");
      const adapted = await logits(model);
      await lora.merge(model);
      const merged = await logits(model);
      await lora.inject(model, { ...everything, name: "b" });
      t.deepEqual(await logits(model), merged);
      await lora.mergeAndUnload(model);
      t.deepEqual(await logits(model), merged);
      t.true(apart(adapted, merged) < 1e-5);
      t.deepEqual(lora.adapters(model), []);
      t.is(
        [...model.parameters()].reduce((n, one) => n + one.size, 0),
        size,
      );
      t.deepEqual(
        [...model.parameters()].filter((one) => one.requiresGrad),
        [],
      );
      // On the cpu the base's weights are mapped from the file, and the merged ones are in memory.
      if (device === "gpu") t.is((await atRest(device)).live, bytes);
      model.dispose();
      t.is((await atRest(device)).live, 0);
    },
  );

  test.serial(`on ${device} no layer inside a module that is trained in full is adapted`, async (t) => {
    const model = await loadModel<"causal-lm">(untied, { device });
    const { adapted } = await lora.inject(model, {
      r: 2,
      targetModules: "all-linear",
      modulesToSave: ["self_attn", "o_proj"],
    });
    t.deepEqual(
      adapted.filter((path) => path.includes("self_attn")),
      [],
    );
    t.is(adapted.length, 6);
    const folder = temporary();
    shake(model);
    const before = await logits(model);
    await lora.saveAdapter(model, folder);
    const again = await loadModel<"causal-lm">(untied, { device });
    await lora.loadAdapter(again, folder);
    t.deepEqual(await logits(again), before);
    model.dispose();
    again.dispose();
  });
}

test("a head tied to a trained embedding is trained with it, and stays tied", async (t) => {
  const model = await loadModel<"causal-lm">(tied, { device: "cpu" });
  const options = { targetModules: ["q_proj"], modulesToSave: ["embed_tokens"], ensureWeightTying: true };
  await lora.inject(model, { r: 2, ...options });
  t.is(model.lm_head.weight, model.getInputEmbedding().weight);
  t.true(model.lm_head.weight.requiresGrad);
  shake(model);
  const trained = await logits(model);
  const folder = temporary();
  await lora.saveAdapter(model, folder);
  const again = await loadModel<"causal-lm">(tied, { device: "cpu" });
  await lora.loadAdapter(again, folder);
  t.deepEqual(await logits(again), trained);
  await lora.mergeAndUnload(again);
  t.is(again.lm_head.weight, again.getInputEmbedding().weight);
  t.true(apart(await logits(again), trained) < 1e-5);
  await t.throwsAsync(lora.inject(again, { targetModules: ["embed_tokens"], ensureWeightTying: true }), {
    code: "ERR_OPTION",
    message: /ensureWeightTying with a low-rank adapter .*\(model.embed_tokens\)/,
  });
  model.dispose();
  again.dispose();
});

for (const from of [untied, tied]) {
  test(`trained tokens of ${from === tied ? "a tied" : "an untied"} model are applied, removed, and merged`, async (t) => {
    const model = await loadModel<"causal-lm">(from, { device: "cpu" });
    const base = await logits(model);
    await lora.inject(model, { r: 2, targetModules: ["q_proj"], trainableTokenIndices: [0, 37, 74] });
    t.deepEqual(await logits(model), base);
    shake(model);
    const trained = await logits(model);
    t.true(apart(trained, base) > 1e-3);
    t.deepEqual(await lora.withoutAdapters(model, () => logits(model)), base);
    await lora.mergeAndUnload(model);
    t.true(apart(await logits(model), trained) < 1e-5);
    t.is(model.lm_head.weight === model.getInputEmbedding().weight, from === tied);
    for (const [asked, code] of [
      [[97], "ERR_INDEX"],
      [[3, 3], "ERR_OPTION"],
      [{ nowhere: [1] }, "ERR_NO_TARGETS"],
    ] as const) {
      await t.throwsAsync(lora.inject(model, { targetModules: ["q_proj"], trainableTokenIndices: asked }), {
        code,
      });
      t.deepEqual(lora.adapters(model), []);
    }
    model.dispose();
  });
}
