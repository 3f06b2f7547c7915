import test, { type ExecutionContext } from "ava";
import { type ErrorCode, LowrankError } from "../../src/errors.js";
import { ConfigFields } from "../../src/models/config-fields.js";
import { writePhi3Config, readPhi3Config } from "../../src/models/phi3/config.js";

const PHI = {
  model_type: "phi3",
  vocab_size: 128,
  hidden_size: 64,
  intermediate_size: 172,
  num_hidden_layers: 2,
  num_attention_heads: 8,
};
const LONG = { type: "longrope", short_factor: [1, 1.5, 2, 3], long_factor: [2, 4, 6, 8] };

const read = (changes: Record<string, unknown> = {}) =>
  readPhi3Config(new ConfigFields("config.json", { ...PHI, ...changes }));

test("missing keys have transformers' defaults", (t) => {
  const phi = read();
  t.is(phi.numKeyValueHeads, 8);
  t.is(phi.maxPositionEmbeddings, 4096);
  t.is(phi.rmsNormEps, 1e-5);
  t.is(phi.slidingWindow, undefined);
  t.false(phi.tieWordEmbeddings);
  t.deepEqual(phi.rope, { theta: 10_000, partial: 1, scaling: { type: "default" } });
});

test("LongRoPE's factor of cos and sin is computed from the lengths by default", (t) => {
  const factor = (changes: Record<string, unknown>) => {
    const { scaling } = read({ rope_scaling: LONG, ...changes }).rope;
    return scaling.type === "longrope" ? scaling.attentionFactor : NaN;
  };
  t.is(factor({}), 1);
  const root = Math.sqrt(1 + Math.log(32) / Math.log(4096));
  t.is(factor({ max_position_embeddings: 131_072 }), root);
  t.is(factor({ rope_scaling: { ...LONG, attention_factor: 1.25 } }), 1.25);
});

test("a configuration that is written reads back unchanged", (t) => {
  const changes = [
    {},
    { rope_scaling: LONG, max_position_embeddings: 8192, original_max_position_embeddings: 2048 },
    { partial_rotary_factor: 0.5, rope_scaling: { ...LONG, short_factor: [1, 2], long_factor: [3, 4] } },
    { sliding_window: 9, resid_pdrop: 0.1, tie_word_embeddings: true, num_key_value_heads: 2 },
  ];
  for (const change of changes) {
    const config = read(change);
    const written = JSON.parse(JSON.stringify(writePhi3Config(config))) as Record<string, unknown>;
    t.deepEqual(readPhi3Config(new ConfigFields("config.json", written)), config);
  }
});

function refused(t: ExecutionContext, change: Record<string, unknown>, code: ErrorCode, message: RegExp) {
  const error = t.throws(() => read(change), { instanceOf: LowrankError, message });
  t.is(error?.code, code);
}

test("unsupported and senseless values are refused", (t) => {
  refused(t, { hidden_act: "gelu" }, "ERR_UNSUPPORTED_MODEL", /hidden_act "gelu"/);
  refused(t, { rope_scaling: { type: "linear", factor: 2 } }, "ERR_UNSUPPORTED_MODEL", /"linear"/);
  refused(t, { quantization_config: {} }, "ERR_UNSUPPORTED_MODEL", /quantised/);
  refused(t, { partial_rotary_factor: 0.4 }, "ERR_FILE_FORMAT", /partial_rotary_factor 0.4 leaves 3 of 8/);
  refused(t, { partial_rotary_factor: 2 }, "ERR_FILE_FORMAT", /partial_rotary_factor 2/);
  const short = { ...LONG, short_factor: [1, 2] };
  refused(t, { rope_scaling: short }, "ERR_FILE_FORMAT", /short_factor must be a list of 4 numbers above 0/);
  refused(t, { num_attention_heads: 7 }, "ERR_FILE_FORMAT", /must divide hidden_size/);
});
