import test, { type ExecutionContext } from "ava";
import { type ErrorCode, LowrankError } from "../../src/errors.js";
import { ConfigFields } from "../../src/models/config-fields.js";
import { readGemma3Config, writeGemma3Config } from "../../src/models/gemma3/config.js";

const GEMMA = {
  model_type: "gemma3_text",
  vocab_size: 128,
  hidden_size: 64,
  intermediate_size: 172,
  num_hidden_layers: 7,
  num_attention_heads: 8,
  head_dim: 16,
};

const read = (changes: Record<string, unknown> = {}) =>
  readGemma3Config(new ConfigFields("config.json", { ...GEMMA, ...changes }));

test("missing keys have transformers' defaults", (t) => {
  const gemma = readGemma3Config(new ConfigFields("config.json", { ...GEMMA, head_dim: undefined }));
  t.is(gemma.headDim, 256);
  t.is(gemma.numKeyValueHeads, 4);
  t.is(gemma.slidingWindow, 4096);
  t.is(gemma.queryPreAttnScalar, 256);
  t.is(gemma.activation, "gelu_pytorch_tanh");
  t.true(gemma.tieWordEmbeddings);
  t.deepEqual(gemma.slidingLayers, [true, true, true, true, true, false, true]);
  t.deepEqual(gemma.rope, { theta: 1e6, scaling: { type: "default" } });
  t.deepEqual(gemma.slidingRope, { theta: 1e4, scaling: { type: "default" } });
});

test("both formats of the rotary parameters are equivalent", (t) => {
  const older = read({
    rope_theta: 5e5,
    rope_local_base_freq: 300,
    rope_scaling: { rope_type: "linear", factor: 8 },
  });
  const newer = read({
    rope_parameters: {
      full_attention: { rope_type: "linear", rope_theta: 5e5, factor: 8 },
      sliding_attention: { rope_type: "default", rope_theta: 300 },
    },
  });
  t.deepEqual(older, newer);
  t.deepEqual(older.rope, { theta: 5e5, scaling: { type: "linear", factor: 8 } });
  t.is(older.slidingRope.theta, 300);
});

test("a configuration that is written reads back unchanged", (t) => {
  const changes = [
    {},
    {
      rope_scaling: { rope_type: "linear", factor: 8 },
      rope_local_base_freq: 300,
      tie_word_embeddings: false,
    },
    { sliding_window_pattern: 3, sliding_window: 9, attention_bias: true, query_pre_attn_scalar: 24 },
    { eos_token_id: [1, 106], dtype: "bfloat16" },
  ];
  for (const change of changes) {
    const config = read(change);
    const written = JSON.parse(JSON.stringify(writeGemma3Config(config))) as Record<string, unknown>;
    t.deepEqual(readGemma3Config(new ConfigFields("config.json", written)), config);
  }
});

function refused(t: ExecutionContext, change: Record<string, unknown>, code: ErrorCode, message: RegExp) {
  const error = t.throws(() => read(change), { instanceOf: LowrankError, message });
  t.is(error?.code, code);
}

test("unsupported features are refused", (t) => {
  refused(t, { use_bidirectional_attention: true }, "ERR_UNSUPPORTED_MODEL", /use_bidirectional_attention/);
  refused(
    t,
    { attn_logit_softcapping: 50 },
    "ERR_UNSUPPORTED_MODEL",
    /attn_logit_softcapping in Gemma 3: .*do not store the scores/,
  );
  refused(
    t,
    { final_logit_softcapping: 0 },
    "ERR_FILE_FORMAT",
    /final_logit_softcapping must be a number above 0/,
  );
  refused(t, { quantization_config: {} }, "ERR_UNSUPPORTED_MODEL", /quantised/);
  refused(t, { layer_types: ["full_attention"] }, "ERR_FILE_FORMAT", /layer_types must be a list of 7/);
  refused(t, { num_key_value_heads: 3 }, "ERR_FILE_FORMAT", /num_key_value_heads must divide 8 heads/);
  refused(t, { head_dim: 15 }, "ERR_FILE_FORMAT", /head_dim must be even/);
});
