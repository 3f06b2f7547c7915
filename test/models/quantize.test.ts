/** Models quantised on loading: they compute with the values of their blocks, and store only the blocks. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import {
  finetune,
  LlamaForCausalLM,
  loadModel,
  lora,
  manualSeed,
  memory,
  noGrad,
  safetensors,
  saveModel,
  scope,
  tensor,
  type CausalLM,
  type Device,
  type TrainEvent,
} from "../../src/index.js";
import { atRest } from "../at-rest.js";
import { testDevices } from "../devices.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { error } from "../parity/goldens.js";
import { adapterBytes, collect, quick } from "../train/quick.js";
import { stepLosses } from "./trained.js";

const KINDS = ["q8_0", "q4_0", "q4_k", "nf4"] as const;
type Kind = (typeof KINDS)[number];
/** Bytes of 256 elements; for nf4 without the headers of its groups. */
const BYTES: Record<Kind, number> = { q8_0: 272, q4_0: 144, q4_k: 144, nf4: 132 };

const CONFIG = {
  vocab_size: 61,
  hidden_size: 256,
  intermediate_size: 512,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
  eos_token_id: 0,
};

/** Returns the folder of a small model with random weights. */
async function folderOf(config: typeof CONFIG = CONFIG): Promise<string> {
  manualSeed(5);
  const model = LlamaForCausalLM.fromConfig(config, { device: "cpu" });
  const folder = join(temporary(), "model");
  await saveModel(model, folder);
  model.dispose();
  return folder;
}

/** Returns the same model with the dequantised values in f32. */
async function unpacked(folder: string, device: Device, quantize: Kind): Promise<CausalLM> {
  const [model, quantised] = await Promise.all([
    loadModel<"causal-lm">(folder, { device }),
    loadModel<"causal-lm">(folder, { device, quantize }),
  ]);
  const state = quantised.stateDict();
  noGrad(() =>
    scope(() =>
      model.loadStateDict(Object.fromEntries(Object.entries(state).map(([k, v]) => [k, v.to("f32")]))),
    ),
  );
  quantised.dispose();
  return model;
}

const IDS = Int32Array.from({ length: 2 * 17 }, (_, i) => (i * 31 + 7) % CONFIG.vocab_size);

async function logits(model: CausalLM): Promise<ArrayLike<number>> {
  const out = noGrad(() =>
    scope(() => model.forward(tensor(IDS, { shape: [2, 17], device: model.device })).logits.to("f32")),
  );
  return out.data().finally(() => out.dispose());
}

/** Returns the tokens that it generates. */
async function tokens(model: CausalLM): Promise<number[]> {
  const list: number[] = [];
  for await (const { token } of model.generate(IDS.subarray(0, 5), { maxNewTokens: 12, temperature: 0 }))
    list.push(token);
  return list;
}

/** Returns ten losses of training a low-rank adapter. */
async function losses(model: CausalLM): Promise<number[]> {
  manualSeed(1);
  await lora.inject(model, { r: 4, loraAlpha: 8, targetModules: "all-linear" });
  model.train();
  const lossOf = () => model.loss(tensor(IDS, { shape: [2, 17], device: model.device }), IDS);
  return stepLosses(model, lossOf, { steps: 10, lr: 1e-2 });
}

for (const device of testDevices()) {
  for (const kind of KINDS) {
    // Serial: adapters are drawn from the process's seed.
    test.serial(`${device}: a model in ${kind} computes and trains like its dequantised copy`, async (t) => {
      const folder = await folderOf();
      const quantised = await loadModel<"causal-lm">(folder, { device, quantize: kind });
      const wide = await unpacked(folder, device, kind);
      // The processor uses one order of summation for both.
      const tolerance = device === "cpu" ? 0 : 1e-5;
      t.true(error(await logits(quantised), await logits(wide)) <= tolerance);
      const [a, b] = [await losses(quantised), await losses(wide)];
      // After AdamW's division by the size of each gradient, rounding differences have a larger effect.
      for (const [i, loss] of a.entries())
        t.true(Math.abs(loss / (b[i] as number) - 1) <= 3 * tolerance, `${i}: ${loss} for ${b[i]}`);
      t.true((a[9] as number) < (a[0] as number));
      for (const model of [quantised, wide]) model.dispose();
    });
  }

  test(`${device}: a quantised model generates the same text as its dequantised copy`, async (t) => {
    const folder = await folderOf();
    for (const kind of KINDS) {
      const quantised = await loadModel<"causal-lm">(folder, { device, quantize: kind });
      const wide = await unpacked(folder, device, kind);
      t.deepEqual(await tokens(quantised), await tokens(wide), kind);
      for (const model of [quantised, wide]) model.dispose();
    }
  });

  test.serial(
    `${device}: weights take the bytes of their blocks, and loading takes little more`,
    async (t) => {
      const folder = await folderOf();
      for (const kind of KINDS) {
        const before = (await atRest(device)).live;
        const model = await loadModel<"causal-lm">(folder, { device, quantize: kind });
        const state = Object.entries(model.stateDict());
        const inBlocks = state.filter(([name]) => /layers\.\d+\..*proj\.weight$/.test(name));
        t.is(inBlocks.length, 14);
        t.true(inBlocks.every(([, { dtype }]) => dtype === kind));
        t.true(state.every(([name, { dtype }]) => inBlocks.some(([own]) => own === name) || dtype === "f32"));
        const blocks = inBlocks.reduce((n, [, { size }]) => n + (size / 256) * BYTES[kind], 0);
        const others = state
          .filter(([, { dtype }]) => dtype === "f32")
          .reduce((n, [, { size }]) => n + size * 4, 0);
        const live = memory(device).live - before;
        // On the cpu f32 tensors are mapped from the file; sizes are rounded up to the pool's classes.
        const expected = blocks + (device === "cpu" ? 0 : others);
        t.true(
          live >= expected && live <= 1.13 * expected + 4096 * state.length,
          `${kind}: ${live} for ${expected}`,
        );
        model.dispose();
      }
    },
  );
}

test("operations that need the values of a quantised weight are refused before anything changes", async (t) => {
  const folder = await folderOf();
  const load = (): Promise<CausalLM> => loadModel<"causal-lm">(folder, { device: "cpu", quantize: "q8_0" });
  const model = await load();
  const weight = model.stateDict()["model.layers.0.self_attn.q_proj.weight"]!;
  t.is(weight.dtype, "q8_0");
  t.true((await weight.data()) instanceof Float32Array);
  t.is((await weight.data()).length, weight.size);
  const refused = { code: "ERR_DTYPE" };
  t.throws(() => weight.add(1), {
    ...refused,
    message: /a quantised weight.*dequantise it with to\("f32"\)/,
  });
  t.throws(() => weight.reshape(-1), refused);
  t.throws(() => (weight.requiresGrad = true), refused);
  t.throws(() => weight.to("q4_0"), { ...refused, message: /is not quantised to q4_0/ });
  await t.throwsAsync(saveModel(model, join(temporary(), "out")), { ...refused, message: /give dtype/ });
  await t.throwsAsync(safetensors.save(join(temporary(), "w.safetensors"), { weight }), refused);
  await saveModel(model, join(temporary(), "out"), { dtype: "f32" });

  const inject = (more: object): Promise<unknown> =>
    lora.inject(model, { r: 2, targetModules: ["q_proj", "down_proj"], ...more });
  await t.throwsAsync(inject({ initLoraWeights: "pissa" }), {
    ...refused,
    message: /pissa and olora over a quantised weight \(.*proj, q8_0\)/,
  });
  await t.throwsAsync(inject({ initLoraWeights: "olora" }), refused);
  await t.throwsAsync(inject({ useDora: true }), { ...refused, message: /DoRA/ });
  t.is(lora.status(model).layers, 0);
  await inject({ modulesToSave: ["up_proj"] });
  t.is(model.stateDict()["model.layers.0.mlp.up_proj.weight"]?.dtype, "f32");
  await t.throwsAsync(lora.merge(model), { ...refused, message: /load the model without quantize/ });
  await t.throwsAsync(lora.mergeAndUnload(model, { safe: false }), { ...refused, message: /merge, and/ });
  t.is(lora.status(model).merged, false);
  model.dispose();
});

test("a row that is no whole blocks is named, with the types that fit", async (t) => {
  const folder = await folderOf({ ...CONFIG, hidden_size: 128 });
  await t.throwsAsync(loadModel(folder, { device: "cpu", quantize: "q4_k" }), {
    code: "ERR_DTYPE",
    message: /q_proj\.weight" of shape \[128, 128\] is no whole blocks of q4_k.*choose q8_0 or q4_0 or nf4/,
  });
  const other = loadModel(folder, { device: "cpu", quantize: "q3" as "q8_0" });
  await t.throwsAsync(other, { code: "ERR_OPTION", message: /quantize/ });
});

test("a weight that is not finite is named", async (t) => {
  const folder = await folderOf();
  const file = join(folder, "model.safetensors");
  const bytes = readFileSync(file);
  const header = JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE(0))).toString()) as Record<
    string,
    { data_offsets: [number, number] }
  >;
  const name = "model.layers.1.mlp.gate_proj.weight";
  bytes.writeFloatLE(
    NaN,
    8 + Number(bytes.readBigUInt64LE(0)) + (header[name]?.data_offsets[0] as number) + 40,
  );
  writeFileSync(file, bytes);
  await t.throwsAsync(loadModel(folder, { device: "cpu", quantize: "nf4" }), {
    code: "ERR_DTYPE",
    message: /gate_proj\.weight": it holds values that are not finite/,
  });
});

test.serial("a run over a quantised model records it, resumes with it, and reports it", async (t) => {
  const given = { model: tinyModel(), data: tinyData() };
  const options = quick(given, "cpu", { quantize: "nf4", saveEvery: 6 });
  const starts = (events: TrainEvent[]): TrainEvent[] => events.filter(({ type }) => type === "start");
  const whole = await collect(finetune(options));
  t.like(starts(whole)[0], { quantize: "nf4" });
  const bytes = adapterBytes(options.output as string);
  const resume = join(options.output as string, "checkpoint-6");
  const again = await collect(finetune({ resume, output: join(temporary(), "out") }));
  t.like(starts(again)[0], { quantize: "nf4", resumedFrom: 6 });
  t.true(adapterBytes((starts(again)[0] as { output: string }).output).equals(bytes));
  await t.throwsAsync(finetune({ resume, quantize: "q8_0" }).result, {
    message: /quantize was nf4, and is q8_0 now/,
  });
});
