/**
 * GGUF files compared with llama.cpp's converters, tensor by tensor, and blocks compared with the gguf package
 * (README.md).
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { loadModel, lora, saveModel } from "../../src/index.js";
import { quantise } from "../../src/gguf/blocks.js";
import { GGUF_BLOCKS, GGUF_TYPES } from "../../src/gguf/types.js";
import { digest, floats, readGguf, type Value } from "../gguf/file.js";
import { testDevices } from "../devices.js";
import { goldenModel, temporary, words } from "../hashed.js";
import { goldens } from "./goldens.js";

interface File {
  golden: string;
  keys: Record<string, Value>;
  /** Type, shape in ggml's order, digest. */
  tensors: Record<string, [string, number[], string]>;
}

interface Blocks {
  values?: number[];
  q8_0: string;
  q4_0?: string;
}

const golden = JSON.parse(readFileSync(join(goldens, "gguf", "golden.json"), "utf8")) as {
  models: Record<string, File & { overrides: Record<string, unknown>; dtype: "f32" }>;
  adapters: Record<string, File & { adapter: string }>;
  blocks: Record<string, Blocks>;
};

for (const [name, { golden: variant, overrides, dtype, keys, tensors }] of Object.entries(golden.models)) {
  for (const device of testDevices())
    test(`${name} on ${device} as GGUF: keys and tensors of llama.cpp's converter`, async (t) => {
      const model = await loadModel(goldenModel(join(goldens, variant), overrides, undefined), {
        device,
      });
      const path = join(temporary(), "model.gguf");
      await saveModel(model, path, { dtype, onNotice: () => {} });
      model.dispose();
      const ours = readGguf(path);
      for (const [key, value] of Object.entries(keys)) t.deepEqual(ours.keys[key], value, key);
      t.deepEqual(Object.keys(ours.tensors).sort(), Object.keys(tensors).sort());
      for (const [tensor, [type, shape, hash]] of Object.entries(tensors)) {
        const one = ours.tensors[tensor];
        t.deepEqual([one?.type, one?.shape], [type, shape], tensor);
        // The converter computes its factors as quotients of float32 frequencies; ours are rounded once.
        if (tensor !== "rope_freqs.weight") t.is(one && digest(one.bytes), hash, tensor);
      }
    });
}

for (const [name, { golden: variant, adapter, keys, tensors }] of Object.entries(golden.adapters)) {
  test(`an adapter of ${name} as GGUF: keys and tensors of llama.cpp's converter`, async (t) => {
    const model = await loadModel(goldenModel(join(goldens, variant)), { device: "cpu" });
    const path = join(temporary(), "adapter.gguf");
    await lora.convertAdapter(join(goldens, adapter), path, { format: "gguf", model });
    model.dispose();
    const ours = readGguf(path);
    for (const [key, value] of Object.entries(keys)) t.deepEqual(ours.keys[key], value, key);
    t.deepEqual(Object.keys(ours.tensors).sort(), Object.keys(tensors).sort());
    for (const [tensor, [type, shape, hash]] of Object.entries(tensors)) {
      const one = ours.tensors[tensor];
      t.deepEqual([one?.type, one?.shape, one && digest(one.bytes)], [type, shape, hash], tensor);
    }
  });
}

test("llama3's factors are the divisors of the frequencies", async (t) => {
  const folder = goldenModel(join(goldens, "llama-untied-llama3"));
  const model = await loadModel(folder, { device: "cpu" });
  const path = join(temporary(), "model.gguf");
  await saveModel(model, path, { onNotice: () => {} });
  model.dispose();
  const { tensors } = readGguf(path);
  // By transformers' formula: base 20,000, 16 dimensions, factor 8, low 1, high 4, 32 positions.
  const expected = Array.from({ length: 8 }, (_, i) => {
    const wavelength = 2 * Math.PI * 20_000 ** (i / 8);
    if (wavelength < 32 / 4) return 1;
    if (wavelength > 32) return 8;
    const smooth = (32 / wavelength - 1) / 3;
    return 1 / ((1 - smooth) / 8 + smooth);
  });
  const ours = floats(tensors["rope_freqs.weight"] as NonNullable<(typeof tensors)[string]>);
  t.deepEqual(
    [...ours].map((x) => x.toPrecision(6)),
    expected.map((x) => x.toPrecision(6)),
  );
  t.true(new Set(expected).size > 2);
});

/** Returns values of U(−scale, scale), as drawn by fill.py. */
function drawn(scale: number): Float32Array {
  const all = words(`gguf/blocks/${scale}`, 64 * 32);
  return Float32Array.from(all, (word) => ((word >>> 8) / 2 ** 24 - 0.5) * 2 * scale);
}

for (const [name, { values, ...expected }] of Object.entries(golden.blocks)) {
  test(`blocks of ${name} are bit-identical to the gguf package's`, async (t) => {
    const scale = name.replace("drawn ", "");
    const given = values === undefined ? drawn(Number(scale)) : Float32Array.from(values);
    for (const type of ["q8_0", "q4_0"] as const) {
      const want = expected[type];
      const bytes = await quantise(given, type);
      if (want === undefined || bytes === undefined) t.is(bytes, want as undefined, type);
      else t.is(want.length > 16 ? Buffer.from(bytes).toString("hex") : digest(bytes), want, type);
    }
  });
}

/** Returns a tensor of bytes in a safetensors file. */
function storedBytes(file: string, name: string): Buffer {
  const all = readFileSync(file);
  const start = 8 + Number(all.readBigUInt64LE(0));
  const header = JSON.parse(all.toString("utf8", 8, start)) as Record<
    string,
    { data_offsets: [number, number] }
  >;
  const [from, to] = header[name]?.data_offsets ?? [0, 0];
  return all.subarray(start + from, start + to);
}

test("blocks of every type that is written are bit-identical to ggml's (quantised.py)", async (t) => {
  const values = Float32Array.from(
    words("blocks", 16384),
    (word, i) => ((word >>> 8) / 2 ** 24 - 0.5) * 2 * (((Math.floor(i / 32) * 7) % 11) / 64),
  );
  for (const type of GGUF_BLOCKS) {
    const want = storedBytes(join(goldens, "quantised.safetensors"), `ggml.${type}`);
    const got = await quantise(values, type);
    t.is(got?.length, want.length, type);
    const { values: size, bytes } = GGUF_TYPES[type];
    for (let block = 0; block < values.length / size; block++) {
      // The sign of a zero scale is arbitrary.
      if (values.subarray(block * size, (block + 1) * size).every((v) => v === 0)) continue;
      const of = (all: Uint8Array): Uint8Array => all.subarray(block * bytes, (block + 1) * bytes);
      t.deepEqual([...of(got as Uint8Array)], [...of(want)], `${type}, block ${block}`);
    }
  }
});
