import { writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { type ErrorCode, LowrankError } from "../../src/errors.js";
import { ConfigFields, readModelConfig } from "../../src/models/config-fields.js";
import { writeLlamaConfig, readLlamaConfig, ropeFrequencies } from "../../src/models/llama/config.js";
import { temporary } from "../hashed.js";

const LLAMA = {
  model_type: "llama",
  vocab_size: 128,
  hidden_size: 64,
  intermediate_size: 172,
  num_hidden_layers: 2,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-5,
  bos_token_id: 1,
  eos_token_id: 2,
  hidden_act: "silu",
};

function fields(value: Record<string, unknown>, file = "config.json"): ConfigFields {
  return new ConfigFields(file, value);
}

function read(changes: Record<string, unknown>, generation?: Record<string, unknown>) {
  const end = generation && fields(generation, "generation_config.json");
  return readLlamaConfig(fields({ ...LLAMA, ...changes }), end);
}

test("missing keys have transformers' defaults", (t) => {
  const {
    max_position_embeddings: _positions,
    num_key_value_heads: _heads,
    rms_norm_eps: _eps,
    ...rest
  } = LLAMA;
  const llama = readLlamaConfig(fields(rest));
  t.is(llama.maxPositionEmbeddings, 2048);
  t.is(llama.numKeyValueHeads, 8);
  t.is(llama.headDim, 8);
  t.is(llama.rmsNormEps, 1e-6);
  t.is(llama.slidingWindow, undefined);
  t.false(llama.tieWordEmbeddings);
  t.deepEqual(llama.rope, { theta: 10_000, scaling: { type: "default" } });
  const mistral = readLlamaConfig(fields({ ...rest, model_type: "mistral" }));
  t.is(mistral.maxPositionEmbeddings, 131_072);
  t.is(mistral.numKeyValueHeads, 8);
  t.is(mistral.slidingWindow, 4096);
});

test("null is a distinct value where transformers accepts it", (t) => {
  t.is(read({ model_type: "mistral", sliding_window: null }).slidingWindow, undefined);
  t.is(read({ model_type: "mistral", num_key_value_heads: null }).numKeyValueHeads, 8);
  t.is(read({ head_dim: null }).headDim, 8);
  t.is(read({ sliding_window: 7 }).slidingWindow, undefined);
  t.is(read({ model_type: "mistral", sliding_window: 7 }).slidingWindow, 7);
});

test("Qwen's windows apply to the layers that the file names, and only if it enables them", (t) => {
  const { head_dim: _size, ...rest } = { ...LLAMA, head_dim: 8 };
  const qwen = (changes: object) => readLlamaConfig(fields({ ...rest, model_type: "qwen2", ...changes }));
  t.deepEqual([qwen({}).slidingWindow, qwen({}).slidingLayers], [undefined, undefined]);
  const on = { use_sliding_window: true, max_window_layers: 1 };
  t.deepEqual([qwen(on).slidingWindow, qwen(on).slidingLayers], [4096, [false, true]]);
  t.deepEqual(qwen({ ...on, max_window_layers: 0 }).slidingLayers, [true, true]);
  t.is(qwen({ ...on, sliding_window: null }).slidingWindow, undefined);
  const named = qwen({ ...on, layer_types: ["sliding_attention", "full_attention"] });
  t.deepEqual(named.slidingLayers, [true, false]);
  refused(
    t,
    () => qwen({ layer_types: ["full_attention"] }),
    "ERR_FILE_FORMAT",
    /layer_types must be a list of 2/,
  );
  refused(
    t,
    () => qwen({ layer_types: ["x", "y"] }),
    "ERR_FILE_FORMAT",
    /each full_attention or sliding_attention/,
  );
  t.deepEqual(
    [qwen({}).attentionBias, qwen({}).attentionOutputBias, qwen({}).headNorms],
    [true, false, false],
  );
  const qwen3 = readLlamaConfig(fields({ ...rest, model_type: "qwen3" }));
  t.deepEqual([qwen3.headDim, qwen3.headNorms, qwen3.attentionBias], [128, true, false]);
});

test("both formats are equivalent", (t) => {
  const scaling = {
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 32,
  };
  const older = read({
    rope_theta: 20_000,
    rope_scaling: { ...scaling, type: "llama3" },
    torch_dtype: "float16",
  });
  const newer = read({
    rope_parameters: { ...scaling, rope_type: "llama3", rope_theta: 20_000 },
    dtype: "float16",
  });
  t.deepEqual(older, newer);
  t.is(older.dtype, "float16");
  t.is(older.rope.theta, 20_000);
});

test("biases and an explicit head size", (t) => {
  const config = read({ attention_bias: true, mlp_bias: true, head_dim: 16 });
  t.true(config.attentionBias);
  t.true(config.mlpBias);
  t.is(config.headDim, 16);
});

test("end tokens: one, a list, and the ones in generation_config.json, which take precedence", (t) => {
  t.deepEqual(read({}).eosTokenIds, [2]);
  t.deepEqual(read({ eos_token_id: [2, 5] }).eosTokenIds, [2, 5]);
  t.deepEqual(read({}, { eos_token_id: [7, 8] }).eosTokenIds, [7, 8]);
  t.deepEqual(read({}, { temperature: 1 }).eosTokenIds, [2]);
  t.deepEqual(read({ eos_token_id: null }).eosTokenIds, []);
});

// transformers' formula in float64 (its f32 ROPE_INIT_FUNCTIONS give the same to seven digits).
const LLAMA3_64 = [
  1.0, 0.07658027637298798, 0.010511205190671433, 0.003048061775285855, 0.0008838834764831844,
  0.0002563104220309749, 7.432544468767007e-5, 2.155305150780135e-5,
];

test("frequencies: default and linear", (t) => {
  const plain = ropeFrequencies(read({ rope_theta: 10_000 }));
  for (const [i, value] of [1, 0.1, 0.01, 0.001].entries())
    t.true(Math.abs((plain[i] ?? NaN) / value - 1) < 1e-15);
  const linear = ropeFrequencies(read({ rope_scaling: { rope_type: "linear", factor: 2 } }));
  t.deepEqual(
    [...linear],
    [...plain].map((f) => f / 2),
  );
});

test("frequencies: llama3 keeps the short waves, stretches the long ones and blends between", (t) => {
  const { headDim, rope } = read({
    head_dim: 16,
    rope_parameters: {
      rope_type: "llama3",
      rope_theta: 20_000,
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 32,
    },
  });
  const got = ropeFrequencies({ headDim, rope });
  t.is(got.length, 8);
  for (const [i, value] of LLAMA3_64.entries()) {
    t.true(Math.abs((got[i] ?? NaN) / value - 1) < 1e-12, `${i}: ${got[i]} ${value}`);
  }
});

function refused(t: ExecutionContext, run: () => unknown, code: ErrorCode, message: RegExp) {
  const error = t.throws(run, { instanceOf: LowrankError, message });
  t.is(error?.code, code);
}

test("another family is an error that lists the supported ones", (t) => {
  refused(t, () => read({ model_type: "gemma3" }), "ERR_UNSUPPORTED_MODEL", /"gemma3".*llama, mistral/);
  refused(
    t,
    () => read({ model_type: undefined }),
    "ERR_FILE_FORMAT",
    /model_type is missing.*llama, mistral/,
  );
});

test("longrope has a factor for each pair of dimensions", (t) => {
  const factors = (count: number) => Array.from({ length: count }, (_, i) => 1 + i);
  const change = (count: number) => ({
    rope_scaling: {
      rope_type: "longrope",
      short_factor: factors(count),
      long_factor: factors(count),
      factor: 2,
    },
  });
  const pairs = read({}).headDim / 2;
  t.like(read(change(pairs)).rope.scaling, { type: "longrope", shortFactor: factors(pairs) });
  refused(t, () => read(change(pairs + 1)), "ERR_FILE_FORMAT", /longrope has \d+ factors, and heads of/);
  const none = { rope_scaling: { rope_type: "longrope", short_factor: factors(pairs) } };
  refused(t, () => read(none), "ERR_FILE_FORMAT", /long_factor must be a list/);
});

test("unsupported features are refused", (t) => {
  for (const type of ["su", "ntk"]) {
    const change = { rope_scaling: { rope_type: type, factor: 2 } };
    refused(
      t,
      () => read(change),
      "ERR_UNSUPPORTED_MODEL",
      new RegExp(`default, linear, dynamic, llama3, yarn and longrope.*"${type}"`),
    );
  }
  refused(t, () => read({ hidden_act: "gelu" }), "ERR_UNSUPPORTED_MODEL", /hidden_act "gelu"/);
  refused(t, () => read({ quantization_config: {} }), "ERR_UNSUPPORTED_MODEL", /quantised/);
  refused(
    t,
    () => read({ partial_rotary_factor: 0.5 }),
    "ERR_UNSUPPORTED_MODEL",
    /partial_rotary_factor other than 1.*\(0.5\)/,
  );
});

test("senseless and absurd values name the file and the key", (t) => {
  const cases: [Record<string, unknown>, RegExp][] = [
    [{ hidden_size: undefined }, /config.json: hidden_size is missing/],
    [{ hidden_size: "64" }, /hidden_size must be a number above 0, got "64"/],
    [{ hidden_size: 1e15 }, /hidden_size must be an integer from 1 to 262144, got 1000000000000000/],
    [{ vocab_size: -1 }, /vocab_size/],
    [{ num_hidden_layers: 2.5 }, /num_hidden_layers/],
    [
      { num_attention_heads: 7, num_key_value_heads: 7 },
      /num_attention_heads must divide hidden_size \(64\)/,
    ],
    [{ num_key_value_heads: 3 }, /num_key_value_heads must divide 8 heads/],
    [{ head_dim: 7 }, /head_dim must be even/],
    [{ rms_norm_eps: 0 }, /rms_norm_eps/],
    [{ tie_word_embeddings: "yes" }, /tie_word_embeddings must be true or false/],
    [{ eos_token_id: "</s>" }, /eos_token_id must be a token id or a list/],
    [{ rope_scaling: { rope_type: "linear" } }, /rope_scaling.factor is missing/],
    [{ hidden_size: 262144, intermediate_size: 1048576, num_hidden_layers: 4096 }, /more than any model has/],
  ];
  for (const [change, message] of cases) refused(t, () => read(change), "ERR_FILE_FORMAT", message);
});

test("a folder without config.json, and one that is not JSON", (t) => {
  const folder = temporary();
  refused(t, () => readModelConfig(join(folder, "absent")), "ERR_FILE_NOT_FOUND", /absent: no such model/);
  refused(t, () => readModelConfig(folder), "ERR_FILE_NOT_FOUND", /config\.json: no such file/);
  writeFileSync(join(folder, "config.json"), "{");
  refused(t, () => readModelConfig(folder), "ERR_FILE_FORMAT", /config\.json: not JSON/);
  writeFileSync(join(folder, "config.json"), "[]");
  refused(t, () => readModelConfig(folder), "ERR_FILE_FORMAT", /object was expected/);
  writeFileSync(join(folder, "config.json"), JSON.stringify(LLAMA));
  t.is(readLlamaConfig(readModelConfig(folder).config).hiddenSize, 64);
});

test("a configuration that is written reads back unchanged", (t) => {
  const changes: Record<string, unknown>[] = [
    {},
    { eos_token_id: [2, 5], attention_bias: true, mlp_bias: true, head_dim: 16, dtype: "float16" },
    { eos_token_id: null, rope_scaling: { rope_type: "linear", factor: 2 }, tie_word_embeddings: true },
    {
      rope_parameters: {
        rope_type: "llama3",
        rope_theta: 5e5,
        factor: 8,
        low_freq_factor: 1,
        high_freq_factor: 4,
      },
    },
    { model_type: "mistral", sliding_window: null },
    { model_type: "mistral", sliding_window: 7 },
    { model_type: "mistral" },
    { rope_scaling: { rope_type: "dynamic", factor: 2 } },
    {
      rope_scaling: { rope_type: "yarn", factor: 4, original_max_position_embeddings: 128, truncate: false },
    },
    {
      rope_parameters: { rope_type: "yarn", rope_theta: 1e6, mscale: 0.8, mscale_all_dim: 0.4, beta_fast: 8 },
    },
    { model_type: "qwen2" },
    { model_type: "qwen2", use_sliding_window: true, max_window_layers: 1, sliding_window: 7 },
    { model_type: "qwen3", attention_bias: true, head_dim: 16 },
    {
      model_type: "qwen3",
      use_sliding_window: true,
      layer_types: ["sliding_attention", "full_attention"],
      sliding_window: 9,
    },
  ];
  for (const change of changes) {
    const config = read(change);
    t.deepEqual(
      readLlamaConfig(JSON.parse(JSON.stringify(writeLlamaConfig(config))) as Record<string, unknown>),
      config,
    );
  }
});
