/** Merging keeps the types of a GGUF file, and copies unchanged tensors byte for byte. */
import { rmSync, statSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { gguf, loadModel, lora, saveModel, type CausalLM } from "../../src/index.js";
import { runHere } from "../cli/lowrank.js";
import { type ReadTensor, readGguf } from "./file.js";
import { ggufModelFile, type TypeName } from "./models.js";
import { goldenModel, temporary } from "../hashed.js";
import { shake } from "../lora/adapted.js";
import { goldens } from "../parity/goldens.js";

const TOUCHED = "blk.0.attn_q.weight";
const Q = "model.layers.0.self_attn.q_proj.weight";

/** Saves an adapter of q_proj for the model in a file; returns its folder and the merged weight. */
async function adapterOf(file: string): Promise<{ adapter: string; merged: Float32Array }> {
  const model = (await loadModel(file, { device: "cpu", dtype: "f32", onNotice: () => {} })) as CausalLM;
  await lora.inject(model, { r: 2, targetModules: ["q_proj"] });
  shake(model);
  const adapter = temporary();
  await lora.saveAdapter(model, adapter);
  await lora.mergeAndUnload(model);
  const merged = (await model.stateDict()[Q]?.data()) as Float32Array;
  model.dispose();
  return { adapter, merged };
}

function changed(before: Record<string, ReadTensor>, after: Record<string, ReadTensor>): string[] {
  return Object.keys(before).filter((name) => !after[name]?.bytes.equals(before[name]?.bytes as Buffer));
}

const rms = (values: ArrayLike<number>): number =>
  Math.sqrt(Array.from(values).reduce((sum, v) => sum + v * v, 0) / values.length);

/** Returns the relative distance of the stored weights from `expected`. */
async function distance(file: string, expected: Float32Array): Promise<number> {
  const model = await loadModel(file, { device: "cpu", dtype: "f32", onNotice: () => {} });
  const got = (await model.stateDict()[Q]?.data()) as Float32Array;
  model.dispose();
  return rms(got.map((v, i) => v - (expected[i] as number))) / rms(expected);
}

/**
 * The largest distance by type: half a step relative to the values' spread, for values up to three times the usual
 * size.
 */
const KEPT: Partial<Record<TypeName, number>> = {
  q4_0: 0.12,
  q4_1: 0.12,
  q5_0: 0.06,
  q5_1: 0.06,
  q8_0: 0.008,
  q4_k: 0.12,
  q5_k: 0.06,
  q6_k: 0.03,
};

test.serial("merge keeps each type, and changes no byte of a tensor without an adapter", async (t) => {
  for (const [type, bound] of Object.entries(KEPT)) {
    const file = ggufModelFile("llama", type as TypeName);
    const { adapter, merged } = await adapterOf(file);
    const output = join(temporary(), "merged.gguf");
    const { status, stderr } = await runHere("merge", "--adapter", adapter, "--output", output);
    t.is(status, 0, stderr);
    const [before, after] = [readGguf(file).tensors, readGguf(output).tensors];
    t.deepEqual(Object.keys(after).sort(), Object.keys(before).sort());
    for (const [name, tensor] of Object.entries(before)) t.is(after[name]?.type, tensor.type, name);
    t.deepEqual(changed(before, after), [TOUCHED], type);
    const off = await distance(output, merged);
    t.true(off > 0 && off < bound, `${type} is off by ${off}`);
    t.true(statSync(output).size < 1.01 * statSync(file).size + 4096, type);
  }
});

test.serial(
  "types that cannot be written are copied, and changed tensors get the next larger one",
  async (t) => {
    for (const [type, larger] of [
      ["q2_k", "Q4_K"],
      ["q3_k", "Q4_K"],
      ["iq4_nl", "Q5_0"],
    ] as const) {
      const file = ggufModelFile("llama", type);
      const { adapter, merged } = await adapterOf(file);
      const output = join(temporary(), "merged.gguf");
      const { status, stderr } = await runHere("merge", "--adapter", adapter, "--output", output);
      t.is(status, 0, stderr);
      const [before, after] = [readGguf(file).tensors, readGguf(output).tensors];
      t.deepEqual(changed(before, after), [TOUCHED], type);
      t.is(after[TOUCHED]?.type, larger);
      t.is(after["token_embd.weight"]?.type, type.toUpperCase());
      t.regex(
        stderr,
        new RegExp(
          `stored as ${larger.toLowerCase()}, the next larger type, because ${type} cannot be written: ${TOUCHED}`,
        ),
      );
      t.true((await distance(output, merged)) < 0.12);
    }
  },
);

test.serial("a file of several types keeps each, and --dtype overrides them", async (t) => {
  const types = { "token_embd.weight": "q6_k", "blk.0.attn_v.weight": "f16", [TOUCHED]: "q5_k" } as const;
  const file = ggufModelFile("llama", "q4_k", { types });
  const { adapter } = await adapterOf(file);
  const output = join(temporary(), "merged.gguf");
  const merging = ["merge", "--adapter", adapter, "--output"];
  t.is((await runHere(...merging, output)).status, 0);
  const [before, after] = [readGguf(file), readGguf(output)];
  t.deepEqual(changed(before.tensors, after.tensors), [TOUCHED]);
  for (const [name, tensor] of Object.entries(before.tensors)) t.is(after.tensors[name]?.type, tensor.type);
  const forced = join(temporary(), "forced.gguf");
  t.is((await runHere(...merging, forced, "--dtype", "q4_k")).status, 0);
  const { tensors, keys } = readGguf(forced);
  for (const name of ["token_embd.weight", "blk.0.attn_v.weight", TOUCHED])
    t.is(tensors[name]?.type, "Q4_K", name);
  t.is(tensors["output_norm.weight"]?.type, "F32");
  t.is(keys["general.file_type"], 14);
  // A tensor that had the type already is copied.
  t.deepEqual(tensors["blk.0.ffn_up.weight"]?.bytes, before.tensors["blk.0.ffn_up.weight"]?.bytes);
});

test("a model saved unchanged has the file's bytes, for any storage type in memory", async (t) => {
  for (const architecture of ["llama", "qwen3", "gemma3", "phi3"] as const) {
    const file = ggufModelFile(architecture, "q4_k", { types: { "token_embd.weight": "q3_k" } });
    for (const dtype of [undefined, "f32", "f16"] as const) {
      const model = await loadModel(file, { device: "cpu", ...(dtype && { dtype }), onNotice: () => {} });
      const output = join(temporary(), "saved.gguf");
      await saveModel(model, output, { onNotice: () => {} });
      model.dispose();
      t.deepEqual(changed(readGguf(file).tensors, readGguf(output).tensors), [], `${architecture}, ${dtype}`);
    }
  }
});

test("without the file a model is saved with the types that it has in memory", async (t) => {
  const file = ggufModelFile("llama", "q5_1");
  const model = await loadModel(file, { device: "cpu", onNotice: () => {} });
  const before = await gguf.load(file);
  rmSync(file);
  const output = join(temporary(), "saved.gguf");
  await saveModel(model, output, { onNotice: () => {} });
  const { tensors } = readGguf(output);
  t.is(tensors[TOUCHED]?.type, "Q5_1");
  const after = await gguf.load(output);
  // Quantised again, with steps of another range: the file's scales have either sign.
  const [first, second] = (await Promise.all([before, after].map((one) => one[TOUCHED]?.data()))) as [
    Float32Array,
    Float32Array,
  ];
  t.true(rms(first.map((v, i) => v - (second[i] as number))) < 0.06 * rms(first));
  model.dispose();
});

test("rows that are no whole blocks of 256 get smaller blocks, as in llama.cpp, or f16", async (t) => {
  const folder = goldenModel(join(goldens, "llama-tied"));
  const model = await loadModel(folder, { device: "cpu", onNotice: () => {} });
  for (const [dtype, smaller] of [
    ["q4_k", "Q5_0"],
    ["q5_k", "Q5_1"],
    ["q6_k", "Q8_0"],
  ] as const) {
    const output = join(temporary(), "saved.gguf");
    const notices: string[] = [];
    await saveModel(model, output, { dtype, onNotice: (text) => void notices.push(text) });
    const { tensors } = readGguf(output);
    for (const [name, { shape, type }] of Object.entries(tensors)) {
      if (shape.length < 2) continue;
      t.is(type, (shape[0] as number) % 32 === 0 ? smaller : "F16", `${name}, ${shape.join()}`);
    }
    t.true(notices.some((text) => text.includes("because their row size is not a multiple of 256")));
  }
  model.dispose();
});
