/** The configuration of Gemma 3's language models, `gemma3_text`. */
import { activationField, type ActivationName } from "../activation.js";
import { ConfigFields } from "../config-fields.js";
import {
  checkCount,
  hubSpecialIds,
  LIMIT,
  probability,
  refuseQuantised,
  refuseTrue,
  specialIds,
  weightsConfig,
} from "../config-parts.js";
import {
  decoderValues,
  hubSizes,
  keyValueHeads,
  type DecoderConfig,
  type DecoderConfigFields,
} from "../decoder-config.js";
import { hubRope, ropeConfig, type RopeConfig } from "../llama/rope.js";
import { MODEL_REFUSALS } from "../../refusals/models.js";
import { refused } from "../../refusals/refusal.js";

/** What `config.json` says, in one spelling. */
export interface Gemma3Config extends DecoderConfig {
  /** The family, as `model_type` names it. */
  modelType: "gemma3_text";
  /** What is between gate and up. */
  activation: ActivationName;
  /** Whether q, k, v and o have biases. */
  attentionBias: boolean;
  /** Scores are divided by its root. */
  queryPreAttnScalar: number;
  /** How many positions back a sliding layer sees, its own counted. */
  slidingWindow: number;
  /** Logits are within ± this, as c · tanh(x / c); undefined where they are not capped. */
  finalLogitSoftcapping: number | undefined;
  /** Which layers slide; the others see all. */
  slidingLayers: readonly boolean[];
  /** Rotary position embedding of the layers that see all. */
  rope: RopeConfig;
  /** That of the layers that slide. */
  slidingRope: RopeConfig;
}

/** `Gemma3TextConfig` of transformers: the fields of `config.json` that are read. */
export interface Gemma3ConfigFields extends DecoderConfigFields {
  /** Rows of the input embedding; 262,208 unless given. */
  vocab_size?: number | undefined;
  /** 4 unless given. */
  num_key_value_heads?: number | null | undefined;
  /** 256 unless given. */
  head_dim?: number | undefined;
  /** gelu_pytorch_tanh unless given. */
  hidden_activation?: string | undefined;
  /** 131,072 unless given. */
  max_position_embeddings?: number | undefined;
  /** 1e-6 unless given. */
  rms_norm_eps?: number | undefined;
  /** True unless given. */
  tie_word_embeddings?: boolean | undefined;
  /** Whether q, k, v and o have biases; false unless given. */
  attention_bias?: boolean | undefined;
  /** 256 unless given. */
  query_pre_attn_scalar?: number | undefined;
  /** 4096 unless given. */
  sliding_window?: number | undefined;
  /** `sliding_attention` or `full_attention` of each layer. */
  layer_types?: readonly string[] | null | undefined;
  /** Every such layer sees all, where `layer_types` is not given; 6 unless given. */
  sliding_window_pattern?: number | undefined;
  /** Of the layers that see all: 1,000,000 unless given. */
  rope_theta?: number | undefined;
  /** Of the layers that slide: 10,000 unless given. */
  rope_local_base_freq?: number | undefined;
  /** Of the layers that see all: as `LlamaConfigFields` has it. */
  rope_scaling?: Readonly<Record<string, unknown>> | null | undefined;
  /** The spelling of transformers 5: `full_attention` and `sliding_attention`, each with what `rope_parameters` takes. */
  rope_parameters?: Readonly<Record<string, Readonly<Record<string, unknown>>>> | null | undefined;
  /** Logits are within ± this, as c · tanh(x / c); not capped unless given. */
  final_logit_softcapping?: number | null | undefined;
}

const KINDS = ["full_attention", "sliding_attention"];

/** The rotations of both kinds of layers, in either spelling. */
function rotations(config: ConfigFields, positions: number): { full: RopeConfig; sliding: RopeConfig } {
  const both = config.object("rope_parameters");
  const of = (kind: string, theta: number, spelling: Record<string, unknown>): RopeConfig => {
    const own = both?.object(kind);
    const fields = { rope_theta: theta, ...spelling, rope_parameters: own?.plain() };
    return ropeConfig(new ConfigFields(config.file, fields), positions);
  };
  const scaling = config.object("rope_scaling")?.plain();
  return {
    full: of("full_attention", config.positive("rope_theta") ?? 1e6, { rope_scaling: scaling }),
    sliding: of("sliding_attention", config.positive("rope_local_base_freq") ?? 1e4, {}),
  };
}

function slidingLayers(config: ConfigFields, layers: number): boolean[] {
  const kinds = config.oneOfEach("layer_types", KINDS, layers);
  const every = config.size("sliding_window_pattern", LIMIT.layers) ?? 6;
  if (kinds !== undefined) return kinds.map((kind) => kind === "sliding_attention");
  return Array.from({ length: layers }, (_, i) => (i + 1) % every !== 0);
}

/**
 * Reads a parsed `config.json` and, where there is one, `generation_config.json`, whose end tokens go before.
 *
 * Errors: `ERR_UNSUPPORTED_MODEL` for a feature that is not built; `ERR_FILE_FORMAT` for a missing or senseless value.
 */
export function gemma3Config(config: ConfigFields, generation?: ConfigFields): Gemma3Config {
  refuseQuantised(config);
  refuseTrue(config, "use_bidirectional_attention");
  if (config.value("attn_logit_softcapping") !== undefined)
    throw refused(MODEL_REFUSALS.attentionCap, config.file, undefined, "ERR_UNSUPPORTED_MODEL");
  const layers = config.required("num_hidden_layers", "size", LIMIT.layers);
  const heads = config.required("num_attention_heads", "size", LIMIT.heads);
  const headDim = config.size("head_dim", LIMIT.headDim) ?? 256;
  if (headDim % 2 !== 0) throw config.error("head_dim", "must be even for rotary positions");
  const positions = config.size("max_position_embeddings", LIMIT.positions) ?? 131_072;
  const { full, sliding } = rotations(config, positions);
  const result: Gemma3Config = {
    modelType: "gemma3_text",
    vocabSize: config.size("vocab_size", LIMIT.vocabulary) ?? 262_208,
    hiddenSize: config.required("hidden_size", "size", LIMIT.width),
    intermediateSize: config.required("intermediate_size", "size", 4 * LIMIT.width),
    numHiddenLayers: layers,
    numAttentionHeads: heads,
    numKeyValueHeads: keyValueHeads(config, heads, 4),
    attentionDropout: probability(config, "attention_dropout", 0),
    headDim,
    activation: activationField(config, "hidden_activation", "gelu_pytorch_tanh"),
    maxPositionEmbeddings: positions,
    rmsNormEps: config.positive("rms_norm_eps") ?? 1e-6,
    attentionBias: config.boolean("attention_bias") ?? false,
    queryPreAttnScalar: config.positive("query_pre_attn_scalar") ?? 256,
    slidingWindow: config.size("sliding_window", LIMIT.positions) ?? 4096,
    slidingLayers: slidingLayers(config, layers),
    finalLogitSoftcapping: config.positive("final_logit_softcapping"),
    tieWordEmbeddings: config.boolean("tie_word_embeddings") ?? true,
    rope: full,
    slidingRope: sliding,
    ...specialIds(config, generation),
    ...weightsConfig(config),
  };
  checkCount(config, decoderValues(result));
  return result;
}

/** The configuration as a `config.json` that every transformers that has the family reads, and `gemma3Config` too. */
export function hubConfig(config: Gemma3Config): Record<string, unknown> {
  const { rope_theta: rope_local_base_freq } = hubRope(config.slidingRope);
  return {
    architectures: ["Gemma3ForCausalLM"],
    ...hubSizes(config),
    head_dim: config.headDim,
    hidden_activation: config.activation,
    attention_bias: config.attentionBias,
    query_pre_attn_scalar: config.queryPreAttnScalar,
    sliding_window: config.slidingWindow,
    layer_types: config.slidingLayers.map((on) => (on ? "sliding_attention" : "full_attention")),
    ...(config.finalLogitSoftcapping !== undefined && {
      final_logit_softcapping: config.finalLogitSoftcapping,
    }),
    ...hubRope(config.rope),
    rope_local_base_freq,
    ...hubSpecialIds(config),
  };
}
