/** Models as GGUF: refusals, notices, storage types, and a file that is complete or absent. */
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

import test from "ava";

import {
  BertModel,
  LlamaForCausalLM,
  loadModel,
  lora,
  saveModel,
  tensor,
  type CausalLM,
  type SaveModelOptions,
  type Tensor,
} from "../../src/index.js";
import { saveModel as begun } from "../../src/models/files/save.js";
import { GGUF_REFUSALS } from "../../src/gguf/refusals.js";
import { floats, readGguf } from "./file.js";
import { goldenModel, temporary, tinyModel } from "../hashed.js";
import { goldens } from "../parity/goldens.js";

const device = "cpu";

/** Saves a model under a new name; returns the path and the notices. */
async function saved(
  model: CausalLM,
  options: SaveModelOptions = {},
): Promise<{ path: string; notices: string[] }> {
  const path = join(temporary(), "below", "model.gguf");
  const notices: string[] = [];
  await saveModel(model, path, { ...options, onNotice: (text) => notices.push(text) });
  return { path, notices };
}

type Changes = Record<string, unknown>;
const llama3 = {
  rope_type: "llama3",
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 32,
};

const refused: [keyof typeof GGUF_REFUSALS, golden: string, Changes, RegExp][] = [
  ["rope", "llama-qwen3", {}, /yarn with beta_fast 8, beta_slow 2 and truncate false cannot/],
  ["rope", "llama-qwen2", { rope_scaling: llama3 }, /rope scaling llama3 of qwen2 cannot/],
  [
    "rope",
    "llama-gemma3",
    { query_pre_attn_scalar: 16, rope_scaling: llama3 },
    /rope scaling llama3 of gemma3/,
  ],
  [
    "rope",
    "llama-gemma3",
    {
      query_pre_attn_scalar: 16,
      rope_scaling: undefined,
      rope_theta: undefined,
      rope_local_base_freq: undefined,
      rope_parameters: {
        full_attention: { rope_type: "default", rope_theta: 1e6 },
        sliding_attention: { rope_type: "linear", factor: 2, rope_theta: 1e4 },
      },
    },
    /rope scaling linear of the layers that slide cannot/,
  ],
  ["scores", "llama-gemma3", {}, /query_pre_attn_scalar 24 cannot/],
  ["activation", "llama-gemma3", { hidden_activation: "gelu" }, /the activation gelu cannot/],
  ["activation", "families/gpt2", { activation_function: "relu" }, /the activation relu cannot/],
  ["scores", "families/gpt2", { scale_attn_by_inverse_layer_idx: true }, /scores that are not divided/],
];

for (const [which, golden, changes, message] of refused) {
  test(`refused: ${message.source}`, async (t) => {
    const model = await loadModel<"causal-lm">(goldenModel(join(goldens, golden), changes), { device });
    const path = join(temporary(), "model.gguf");
    const error = await t.throwsAsync(saveModel(model, path), { code: "ERR_OPTION", message });
    t.true(error?.message.endsWith(`${GGUF_REFUSALS[which].reason}; ${GGUF_REFUSALS[which].instead}`));
    t.deepEqual(readdirSync(dirname(path)), []);
    model.dispose();
  });
}

test("refused: biases and head sizes that llama.cpp does not support, and other families", async (t) => {
  const path = join(temporary(), "model.gguf");
  const sizes = {
    vocab_size: 32,
    hidden_size: 32,
    intermediate_size: 32,
    num_hidden_layers: 1,
    num_attention_heads: 2,
  };
  const cases: [object, RegExp][] = [
    [
      { model_type: "qwen3", head_dim: 16, num_key_value_heads: 2, attention_bias: true },
      /attention_bias cannot/,
    ],
    [{ model_type: "qwen2", head_dim: 8, num_key_value_heads: 2 }, /head_dim 8 cannot/],
  ];
  for (const [own, message] of cases) {
    const model = LlamaForCausalLM.fromConfig({ ...sizes, ...own }, { device });
    await t.throwsAsync(saveModel(model, path), { code: "ERR_OPTION", message });
    model.dispose();
  }
  const bert = BertModel.fromConfig({ ...sizes, max_position_embeddings: 8 }, { device });
  await t.throwsAsync(saveModel(bert, path), {
    code: "ERR_UNSUPPORTED_MODEL",
    message:
      /a model of model_type "bert" cannot be written in a model as GGUF: llama\.cpp has no such language models/,
  });
  bert.dispose();
  t.false(existsSync(path));
});

test("options: names, formats, storage types, existing files, adapters", async (t) => {
  const model = await loadModel<"causal-lm">(tinyModel(), { device });
  model.tokenizer = undefined;
  const folder = temporary();
  const [path, other] = [join(folder, "model.gguf"), join(folder, "model")];
  const wrong: [string, object, RegExp][] = [
    [other, { dtype: "q8_0" }, /dtype must be one of f32, f16, bf16, got "q8_0"/],
    [path, { dtype: "q2_k" }, /dtype must be one of f32, f16, bf16, q8_0, .*q6_k, got "q2_k"/],
    [path, { format: "onnx" }, /format must be one of safetensors, gguf, got "onnx"/],
    [
      path,
      { maxShardBytes: 100 },
      /maxShardBytes with the format gguf: a GGUF file is one file; leave it out/,
    ],
    [path, { onNotice: 3 }, /onNotice must be a function, got 3/],
  ];
  for (const [where, options, message] of wrong)
    await t.throwsAsync(saveModel(model, where, options as SaveModelOptions), {
      code: "ERR_OPTION",
      message,
    });
  const onNotice = (): void => {};
  await saveModel(model, other, { format: "gguf", onNotice });
  t.is(readGguf(other).keys["general.type"], "model");
  await saveModel(model, path, { onNotice });
  const before = readFileSync(path);
  await t.throwsAsync(saveModel(model, path, { onNotice }), {
    code: "ERR_OUTPUT_EXISTS",
    message: /model\.gguf: exists/,
  });
  await saveModel(model, path, { overwrite: true, dtype: "f16", onNotice });
  t.true(readFileSync(path).length < before.length);
  mkdirSync(join(folder, "a.gguf"));
  await t.throwsAsync(saveModel(model, join(folder, "a.gguf"), { overwrite: true, onNotice }), {
    code: "ERR_OUTPUT_EXISTS",
  });
  await saveModel(model, join(folder, "b.gguf"), { format: "safetensors" });
  t.true(existsSync(join(folder, "b.gguf", "config.json")));
  await lora.inject(model, { r: 2, targetModules: ["q_proj"] });
  await t.throwsAsync(saveModel(model, join(folder, "c.gguf")), {
    code: "ERR_OPTION",
    message: /call mergeAndUnload/,
  });
  t.deepEqual(readdirSync(folder).sort(), ["a.gguf", "b.gguf", "model", "model.gguf"]);
  model.dispose();
});

test("a failed write leaves nothing", async (t) => {
  const model = await loadModel<"causal-lm">(tinyModel(), { device });
  model.tokenizer = undefined;
  const folder = temporary();
  writeFileSync(join(folder, "file"), "");
  await t.throwsAsync(saveModel(model, join(folder, "file", "m.gguf"), { onNotice: () => {} }), {
    code: "ERR_WRITE",
  });
  if (process.getuid?.() !== 0) {
    chmodSync(folder, 0o500);
    await t.throwsAsync(saveModel(model, join(folder, "m.gguf"), { onNotice: () => {} }), {
      code: "ERR_WRITE",
    });
    chmodSync(folder, 0o700);
  }
  t.deepEqual(readdirSync(folder), ["file"]);
  model.dispose();
});

test("values outside a type's range are refused by name, before the file is replaced", async (t) => {
  const cases: [number, "f16" | "q8_0" | "q4_0", string, RegExp][] = [
    [
      70_000,
      "f16",
      "ERR_DTYPE",
      /model\.layers\.1\.mlp\.up_proj\.weight contains 70000, beyond f16's maximum of 65,504; store it as bf16/,
    ],
    [1e7, "q8_0", "ERR_DTYPE", /up_proj\.weight contains 10000000, too large for the f16 scales of q8_0/],
    [6e5, "q4_0", "ERR_DTYPE", /up_proj\.weight contains 600000, too large for the f16 scales of q4_0/],
    [NaN, "q4_0", "ERR_NOT_FINITE", /up_proj\.weight contains NaN or infinity, which q4_0 cannot store/],
    [NaN, "q8_0", "ERR_NOT_FINITE", /up_proj\.weight contains NaN or infinity, which q8_0 cannot store/],
    [
      -Infinity,
      "q4_0",
      "ERR_NOT_FINITE",
      /up_proj\.weight contains NaN or infinity, which q4_0 cannot store/,
    ],
  ];
  for (const [value, dtype, code, message] of cases) {
    const model = await loadModel<"causal-lm">(tinyModel(), { device });
    model.tokenizer = undefined;
    const weight = model.stateDict()["model.layers.1.mlp.up_proj.weight"] as Tensor;
    const values = new Float32Array(weight.shape.reduce((n, d) => n * d, 1)).fill(0.5);
    values[77] = value;
    weight.copy(tensor(values, { shape: [...weight.shape], device }));
    const path = join(temporary(), "model.gguf");
    await t.throwsAsync(saveModel(model, path, { dtype, onNotice: () => {} }), { code, message });
    t.deepEqual(readdirSync(dirname(path)), []);
    if (Number.isFinite(value)) await saveModel(model, path, { dtype: "bf16", onNotice: () => {} });
    model.dispose();
  }
});

test("a row that is no whole number of blocks is stored as f16 with a notice; vectors and positions are f32", async (t) => {
  const gpt2 = await loadModel<"causal-lm">(goldenModel(join(goldens, "families/gpt2")), { device });
  const { tensors } = readGguf((await saved(gpt2, { dtype: "q4_0" })).path);
  t.is(tensors["position_embd.weight"]?.type, "F32");
  t.is(tensors["blk.0.attn_qkv.weight"]?.type, "Q4_0");
  t.is(tensors["blk.0.attn_qkv.bias"]?.type, "F32");
  gpt2.dispose();
  const llama = await loadModel<"causal-lm">(goldenModel(join(goldens, "llama-tied")), { device });
  const { path, notices } = await saved(llama, { dtype: "q8_0" });
  const file = readGguf(path);
  t.is(file.tensors["token_embd.weight"]?.type, "F16");
  t.is(file.keys["general.file_type"], 7);
  t.regex(
    notices.join("\n"),
    /stored as f16, because their row size is not a multiple of 32: .*token_embd\.weight/,
  );
  t.regex(notices.join("\n"), /has no tokenizer\.json, so the file accepts only token ids/);
  t.is(file.keys["tokenizer.ggml.model"], "none");
  llama.dispose();
});

test("by default weights are stored with the type that they have in memory", async (t) => {
  const folder = goldenModel(join(goldens, "llama-tied"));
  for (const [dtype, type, number] of [
    ["f32", "F32", 0],
    ["f16", "F16", 1],
    ["bf16", "BF16", 32],
  ] as const) {
    const model = await loadModel<"causal-lm">(folder, { device, dtype });
    const { keys, tensors } = readGguf((await saved(model)).path);
    t.is(tensors["blk.1.attn_q.weight"]?.type, type);
    t.is(tensors["blk.1.attn_norm.weight"]?.type, "F32");
    t.is(keys["general.file_type"], number);
    model.dispose();
  }
});

test("windows and long factors that llama.cpp reads differently cause a notice", async (t) => {
  const mistral = await loadModel<"causal-lm">(goldenModel(join(goldens, "llama-mistral")), { device });
  t.regex(
    (await saved(mistral)).notices.join("\n"),
    /llama\.cpp does not apply this model's sliding window of 7/,
  );
  mistral.dispose();
  const phi3 = await loadModel<"causal-lm">(goldenModel(join(goldens, "llama-phi3")), { device });
  const { path, notices } = await saved(phi3);
  t.regex(
    notices.join("\n"),
    /chooses the factors for long texts by its context size.*keep the size at 64 or below/,
  );
  const { keys, tensors } = readGguf(path);
  t.is(keys["phi3.attention.sliding_window"], 9);
  t.deepEqual(
    [...floats(tensors["rope_factors_long.weight"] as NonNullable<(typeof tensors)[string]>)],
    [2, 4],
  );
  phi3.dispose();
});

test("yarn's factor is written if it differs from the paper's", async (t) => {
  const keyOf = async (attention_factor?: number): Promise<unknown> => {
    const scaling = { type: "yarn", factor: 4, original_max_position_embeddings: 32, attention_factor };
    const model = await loadModel<"causal-lm">(
      goldenModel(join(goldens, "llama-qwen2"), { rope_scaling: scaling }),
      {
        device,
      },
    );
    const { keys } = readGguf((await saved(model)).path);
    model.dispose();
    return keys["qwen2.rope.scaling.attn_factor"];
  };
  t.is(await keyOf(), undefined);
  t.is(await keyOf(0.1 * Math.log(4) + 1), undefined);
  t.is(await keyOf(1.3), Math.fround(1.3 / (0.1 * Math.log(4) + 1)));
});

test("a logit cap is written, with a notice that older versions of llama.cpp ignore it", async (t) => {
  const folder = goldenModel(join(goldens, "llama-gemma3-capped"), { query_pre_attn_scalar: 16 });
  const model = await loadModel<"causal-lm">(folder, { device });
  const { path, notices } = await saved(model);
  t.is(readGguf(path).keys["gemma3.final_logit_softcapping"], 10);
  t.regex(notices.join("\n"), /older versions of llama\.cpp leave out the cap of Gemma 3's logits \(10\)/);
  model.dispose();
});

test("Gemma's windows are written by layer if they do not skip every sixth layer", async (t) => {
  const scalar = { query_pre_attn_scalar: 16 };
  const keysOf = async (
    changes: Changes & { num_hidden_layers?: number },
  ): Promise<Record<string, unknown>> => {
    const model = await loadModel<"causal-lm">(
      goldenModel(join(goldens, "llama-gemma3"), { ...scalar, ...changes }),
      {
        device,
      },
    );
    const { keys } = readGguf((await saved(model)).path);
    model.dispose();
    return keys;
  };
  const every = await keysOf({ sliding_window_pattern: 6, num_hidden_layers: 7 });
  t.is(every["gemma3.attention.sliding_window"], 5);
  t.is(every["gemma3.attention.sliding_window_pattern"], undefined);
  t.deepEqual((await keysOf({}))["gemma3.attention.sliding_window_pattern"], [true, false, true]);
  t.is((await keysOf({ sliding_window_pattern: 1 }))["gemma3.attention.sliding_window"], undefined);
});

test("an abort ends the save with the signal's reason, and leaves nothing", async (t) => {
  const model = await loadModel<"causal-lm">(tinyModel(), { device });
  model.tokenizer = undefined;
  const folder = temporary();
  const reason = new Error("enough");
  for (const name of ["model.gguf", "model"]) {
    const path = join(folder, name);
    const aborting = new AbortController();
    // The library's own writer is still loading when this call returns.
    const saving = begun(model, path, { signal: aborting.signal, onNotice: () => {} });
    aborting.abort(reason);
    t.is(await t.throwsAsync(saving), reason);
    await t.throwsAsync(saveModel(model, path, { signal: AbortSignal.abort(reason) }), { message: "enough" });
  }
  t.deepEqual(readdirSync(folder), []);
  model.dispose();
});
