/** Models of GGUF files: every type, compared with transformers (test/parity/gguf_models.py). */
import { mkdirSync, copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test, { type ExecutionContext } from "ava";

import {
  gguf,
  inspect,
  loadModel,
  LowrankError,
  safetensors,
  saveModel,
  scope,
  tensor,
  type CausalLM,
  type ErrorCode,
  type Tensor,
} from "../../src/index.js";
import { testDevices, type TestDevice } from "../devices.js";
import { F32, ggufFile, ggufModelFile, TYPES, type Decoder, type TypeName } from "./models.js";
import { temporary } from "../hashed.js";
import { goldens } from "../parity/goldens.js";

const folder = join(goldens, "gguf");
const IDS = Int32Array.of(3, 17, 42, 8, 8, 63, 0, 21, 5, 33, 11, 60, 2);

async function logitsOf(model: CausalLM, ids: Int32Array): Promise<Float32Array> {
  const logits = scope(
    () => model.forward(tensor(ids, { shape: [1, ids.length], device: model.device })).logits,
  );
  const values = (await logits.data()) as Float32Array;
  logits.dispose();
  return values;
}

for (const device of testDevices()) {
  for (const name of ["llama", "llama-untied", "qwen2", "qwen3", "gemma3", "phi3", "gpt2"]) {
    test(`${device}: ${name} has transformers' logits`, async (t) => {
      const expected = (await safetensors.load(join(folder, "logits.safetensors"), { device: "cpu" }))[name]!;
      const values = (await expected.data()) as Float32Array;
      const model = await loadModel<"causal-lm">(join(folder, `${name}.gguf`), { device });
      const got = await logitsOf(model, IDS);
      t.is(got.length, values.length);
      // Sums of some 64 products in f32 on both sides, over two blocks: about 20 roundings of the largest.
      const bound = 20 * 2 ** -24 * Math.max(...values.map(Math.abs)) + 1e-5;
      const worst = Math.max(...got.map((value, i) => Math.abs(value - values[i]!)));
      t.true(worst < bound, `${worst}`);
      model.dispose();
    });
  }
}

/** Returns a tensor of the file, with the file's reordering and offsets undone. */
async function undone(
  architecture: Decoder,
  stored: Record<string, Tensor>,
  name: string,
  heads: number,
): Promise<number[]> {
  const values = Array.from(await stored[name]!.to("f32").data());
  if (architecture === "gemma3" && name.endsWith("norm.weight")) return values.map((v) => Math.fround(v - 1));
  if (architecture !== "llama" || heads === 0) return values;
  const [rows = 0, size = 1] = stored[name]!.shape;
  const D = rows / heads;
  return Array.from({ length: rows }, (_, row) => {
    const [head, within] = [Math.floor(row / D), row % D];
    const from = head * D + (within < D / 2 ? 2 * within : 2 * (within - D / 2) + 1);
    return values.slice(from * size, (from + 1) * size);
  }).flat();
}

async function everyType(t: ExecutionContext, device: TestDevice, type: TypeName, architecture: Decoder) {
  const file = ggufModelFile(architecture, type);
  const stored = await gguf.load(file, { device });
  const model = await loadModel<"causal-lm">(file, { device });
  const state = model.stateDict();
  const where = `${architecture} ${type}`;
  const layer = "model.layers.0.";
  const names: [string, string, number][] = [
    ["token_embd.weight", "model.embed_tokens.weight", 0],
    ["blk.0.attn_norm.weight", `${layer}input_layernorm.weight`, 0],
    ["blk.0.attn_output.weight", `${layer}self_attn.o_proj.weight`, 0],
    ["blk.0.ffn_down.weight", `${layer}mlp.down_proj.weight`, 0],
    ...(architecture === "phi3"
      ? ([["blk.0.attn_qkv.weight", `${layer}self_attn.qkv_proj.weight`, 0]] as [string, string, number][])
      : ([
          ["blk.0.attn_q.weight", `${layer}self_attn.q_proj.weight`, 4],
          ["blk.0.attn_k.weight", `${layer}self_attn.k_proj.weight`, 2],
          ["blk.0.attn_v.weight", `${layer}self_attn.v_proj.weight`, 0],
        ] as [string, string, number][])),
  ];
  for (const [from, to, heads] of names) {
    const expected = await undone(architecture, stored, from, heads);
    const got = await state[to]!.to("f32").data();
    t.true(got.length === expected.length && expected.every((v, i) => v === got[i]), `${where}: ${to}`);
  }
  // The copy in a folder is not quantised.
  const copy = join(temporary(), "copy");
  const inBlocks = !["f32", "f16", "bf16"].includes(type);
  t.is(state[`${layer}mlp.down_proj.weight`]!.dtype === type.toLowerCase(), true, where);
  await saveModel(model, copy, inBlocks ? { dtype: "f32" } : {});
  const again = await loadModel<"causal-lm">(copy, { device });
  const ids = Int32Array.of(1, 30, 7, 7, 19, 2, 11, 0, 4, 25);
  const logits = await logitsOf(model, ids);
  t.true(logits.every(Number.isFinite) && new Set(logits).size > 100, where);
  const copied = await logitsOf(again, ids);
  // A GPU sums over blocks in another order.
  const most = device === "cpu" ? 0 : 1e-5 * Math.max(...logits.map(Math.abs));
  t.true(
    logits.every((v, i) => Math.abs(v - copied[i]!) <= most),
    `${where}: logits`,
  );
  model.dispose();
  again.dispose();
  for (const one of Object.values(stored)) one.dispose();
}

for (const architecture of ["llama", "qwen2", "qwen3", "gemma3", "phi3"] as const) {
  test(`cpu: ${architecture} of every type is bit-identical to its copy in a folder`, async (t) => {
    for (const type of Object.keys(TYPES) as TypeName[]) await everyType(t, "cpu", type, architecture);
  });
}

if (testDevices().includes("gpu")) {
  test("gpu: quantised blocks serve as a model's weights", async (t) => {
    await everyType(t, "gpu", "q4_k", "llama");
    await everyType(t, "gpu", "q5_1", "gemma3");
  });
}

test("weights are stored as the options say, and a missing head is tied to the embedding", async (t) => {
  const file = ggufModelFile("llama", "q8_0", { size: 32 });
  const model = await loadModel<"causal-lm">(file, { device: "cpu", dtype: "bf16" });
  t.is(model.stateDict()["model.layers.0.mlp.up_proj.weight"]!.dtype, "bf16");
  t.is(model.lm_head.weight, model.getInputEmbedding().weight);
  t.is(model.source, file);
  t.is(model.folder, undefined);
  model.dispose();
});

test("Llama 3's factors are read as its scaling, and other factors are kept unchanged", async (t) => {
  const theta = 500_000;
  const write = (factors: number[]): string => {
    const bytes = Buffer.from(Float32Array.from(factors).buffer);
    const plain = parts();
    return ggufFile(plain.metadata, [
      ...plain.tensors,
      { name: "rope_freqs.weight", shape: [factors.length], type: "f32", bytes },
    ]);
  };
  const D = 64;
  const llama3 = Array.from({ length: D / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * theta ** ((2 * i) / D);
    if (wavelength < 8192 / 4) return 1;
    if (wavelength > 8192) return 32;
    const smooth = (8192 / wavelength - 1) / 3;
    return 1 / ((1 - smooth) / 32 + smooth);
  });
  const model = await loadModel<"causal-lm">(write(llama3), { device: "cpu" });
  t.like(model.config["rope"], {
    theta,
    scaling: { type: "llama3", factor: 32, originalMaxPositionEmbeddings: 8192 },
  });
  const own = Array.from({ length: D / 2 }, (_, i) => 1 + i / 4);
  const other = await loadModel<"causal-lm">(write(own), { device: "cpu" });
  t.like(other.config["rope"], { scaling: { type: "longrope", attentionFactor: 1 } });
  const { scaling } = other.config["rope"] as { scaling: { shortFactor: number[]; longFactor: number[] } };
  t.deepEqual([scaling.shortFactor, scaling.longFactor], [own, own]);
  await t.throwsAsync(loadModel(write([1, 2])), {
    code: "ERR_FILE_FORMAT",
    message: /longrope has 2 factors/,
  });
  for (const one of [model, other]) one.dispose();
});

/** Returns the parts of a one-block llama, without factors. */
function parts() {
  const key = (name: string): string => `llama.${name}`;
  const C = 256;
  const sizes: [string, number[]][] = [
    ["token_embd.weight", [32, C]],
    ...["attn_q", "attn_output", "ffn_gate", "ffn_up", "ffn_down"].map(
      (name) => [`blk.0.${name}.weight`, [C, C]] as [string, number[]],
    ),
    ...["attn_k", "attn_v"].map((name) => [`blk.0.${name}.weight`, [C / 2, C]] as [string, number[]]),
    ...["blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"].map(
      (name) => [`${name}.weight`, [C]] as [string, number[]],
    ),
  ];
  return {
    metadata: {
      "general.architecture": "llama",
      [key("context_length")]: 64,
      [key("embedding_length")]: C,
      [key("block_count")]: 1,
      [key("feed_forward_length")]: C,
      [key("attention.head_count")]: 4,
      [key("attention.head_count_kv")]: 2,
      [key("attention.layer_norm_rms_epsilon")]: new F32(1e-5),
      [key("rope.freq_base")]: new F32(500_000),
    },
    tensors: sizes.map(
      ([name, shape]) => ({ name, shape, type: shape.length === 1 ? "f32" : "f16" }) as const,
    ),
  };
}

test("an unsupported or damaged file is one error", async (t) => {
  const refused = async (path: string, code: ErrorCode, message: RegExp): Promise<void> => {
    const error = await t.throwsAsync(loadModel(path, { device: "cpu" }), {
      instanceOf: LowrankError,
      message,
    });
    t.is(error.code, code);
    t.is(error.message.split("\n").length, 1);
  };
  const of = (metadata: Parameters<typeof ggufFile>[0]): string =>
    ggufModelFile("llama", "f16", { size: 32, metadata });
  await refused(ggufFile({}, []), "ERR_FILE_FORMAT", /general\.architecture is missing/);
  await refused(
    of({ "general.architecture": "mamba" }),
    "ERR_UNSUPPORTED_MODEL",
    /"mamba" is not supported in GGUF.*llama, /,
  );
  await refused(
    of({ "general.architecture": "toString" }),
    "ERR_UNSUPPORTED_MODEL",
    /"toString" is not supported/,
  );
  await refused(of({ "general.architecture": 3 }), "ERR_FILE_FORMAT", /general\.architecture must be a text/);
  await refused(
    of({ "general.architecture": "x".repeat(2 ** 26) }),
    "ERR_FILE_FORMAT",
    /general\.architecture takes 67108876 bytes, and values are read that take 67108864 at most/,
  );
  await refused(of({ "general.architecture": "qwen2" }), "ERR_FILE_FORMAT", /qwen2\.\S+ is missing/);
  await refused(of({ "split.count": 2 }), "ERR_UNSUPPORTED_MODEL", /one of 2 .*\(llama-gguf-split --merge\)/);
  await refused(of({ "llama.expert_count": 8 }), "ERR_UNSUPPORTED_MODEL", /llama\.expert_count is 8/);
  await refused(
    of({ "llama.attention.head_count": [4, 8] }),
    "ERR_UNSUPPORTED_MODEL",
    /head_count differs by layer/,
  );
  await refused(
    of({ "llama.attention.value_length": 4 }),
    "ERR_UNSUPPORTED_MODEL",
    /value heads of 4 dimensions with key heads of 8/,
  );
  await refused(
    of({ "llama.rope.scaling.type": "longrope" }),
    "ERR_UNSUPPORTED_MODEL",
    /rope scaling "longrope"/,
  );
  await refused(of({ "llama.block_count": 2 }), "ERR_UNMATCHED_KEY", /missing: model\.layers\.1\./);
  await refused(
    of({ "llama.embedding_length": 64 }),
    "ERR_SHAPE_MISMATCH",
    /is \[32, 32\], the configuration expects/,
  );
  await refused(
    of({ "tokenizer.ggml.model": "bert" }),
    "ERR_UNSUPPORTED_MODEL",
    /"bert" is not supported; supported are gpt2 and llama/,
  );
  const pre = { "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a"] };
  await refused(
    of({ ...pre, "tokenizer.ggml.pre": "viking" }),
    "ERR_UNSUPPORTED_MODEL",
    /tokenizer\.ggml\.pre "viking" is not supported; supported are default, gpt-2/,
  );
  await refused(of(pre), "ERR_FILE_FORMAT", /tokenizer\.ggml\.merges is missing/);
  await refused(
    of({ ...pre, "tokenizer.ggml.merges": ["ab"] }),
    "ERR_FILE_FORMAT",
    /merges must be pairs.*number 0 is "ab"/,
  );
  await refused(
    of({ ...pre, "tokenizer.ggml.merges": ["a b"] }),
    "ERR_FILE_FORMAT",
    /no tokenizer is made of it/,
  );
  const spm = { "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["a", "b"] };
  await refused(of(spm), "ERR_FILE_FORMAT", /tokenizer\.ggml\.scores is missing/);
  await refused(
    of({ ...spm, "tokenizer.ggml.scores": [0.5] }),
    "ERR_FILE_FORMAT",
    /a score for each of 2 tokens, and has 1/,
  );
  await refused(
    of({ "tokenizer.ggml.model": "llama" }),
    "ERR_FILE_FORMAT",
    /tokenizer\.ggml\.tokens is missing/,
  );
  const lfs = join(temporary(), "x.gguf");
  writeFileSync(lfs, "version https://git-lfs.github.com/spec/v1\n");
  await refused(lfs, "ERR_FILE_FORMAT", /at byte 0: .*Git LFS pointer/);
  const alone = join(temporary(), "alone");
  mkdirSync(alone);
  copyFileSync(join(folder, "llama.gguf"), join(alone, "m.gguf"));
  await refused(alone, "ERR_FILE_NOT_FOUND", /name the file, such as .*m\.gguf/);
});

test("unknown keys of the architecture cause a notice, and a file needs no .gguf extension", async (t) => {
  const path = ggufModelFile("llama", "f32", { size: 32, metadata: { "llama.attention.sorcery": 1 } });
  const notices: string[] = [];
  const other = join(temporary(), "blob");
  copyFileSync(path, other);
  const model = await loadModel<"causal-lm">(other, {
    device: "cpu",
    onNotice: (text) => notices.push(text),
  });
  t.deepEqual(notices, [`${other}: ignored 1 unknown keys: llama.attention.sorcery`]);
  model.dispose();
});

test("a model without a tokenizer reports that when it is to encode text", async (t) => {
  const model = await loadModel<"causal-lm">(join(folder, "llama.gguf"), { device: "cpu" });
  t.is(model.tokenizer, undefined);
  const pieces: number[] = [];
  for await (const { token } of model.generate(Int32Array.of(1, 5), { maxNewTokens: 3, seed: 1 }))
    pieces.push(token);
  t.true(pieces.length > 0);
  const { readTokenisation: tokenisation } = await import("../../src/train/prepare.js");
  const error = t.throws(() => tokenisation(model, 8), { code: "ERR_FILE_NOT_FOUND" });
  t.regex(error.message, /llama\.gguf: the file has no tokenizer \(tokenizer\.ggml\.model\)/);
  model.dispose();
});

test("gguf.load returns the tensors of the file unchanged", async (t) => {
  const loaded = await gguf.load(join(folder, "llama.gguf"), { device: "cpu" });
  t.deepEqual(loaded["blk.0.attn_k.weight"]!.shape, [16, 32]);
  t.is(loaded["token_embd.weight"]!.dtype, "f32");
  t.is(loaded["blk.0.attn_k.weight"]!.dtype, "f16");
  t.false(loaded["token_embd.weight"]!.requiresGrad);
  await t.throwsAsync(gguf.load(3 as never), { code: "ERR_OPTION", message: /^gguf\.load: path/ });
  await t.throwsAsync(gguf.load("nowhere.gguf"), { code: "ERR_FILE_NOT_FOUND" });
  const cut = join(temporary(), "cut.gguf");
  writeFileSync(cut, readFileSync(join(folder, "llama.gguf")).subarray(0, 20_000));
  await t.throwsAsync(gguf.load(cut), {
    code: "ERR_FILE_FORMAT",
    message: /cut\.gguf: at byte \d+: .*cut off/,
  });
});

test("inspect describes a GGUF file", async (t) => {
  const found = await inspect(join(folder, "llama.gguf"));
  t.like(found, { kind: "model", family: "llama", fits: true, layers: 2, vocabulary: 64 });
});
