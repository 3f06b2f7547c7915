/** The configuration of Gemma 3's language models, `gemma3_text`. */
import { readActivation, type ActivationName } from "../activation.js";
import { ConfigFields } from "../config-fields.js";
import {
  checkCount,
  writeSpecialIds,
  LIMIT,
  readProbability,
  refuseQuantised,
  refuseTrue,
  readSpecialIds,
  readWeightsConfig,
} from "../config-parts.js";
import {
  countDecoderValues,
  writeSizes,
  readKeyValueHeads,
  type DecoderConfig,
  type DecoderConfigFields,
} from "../decoder/config.js";
import { writeRope, readRopeConfig, type RopeConfig } from "../decoder/rope.js";
import { MODEL_REFUSALS } from "../../refusals/models.js";
import { createRefusal } from "../../refusals/refusal.js";

/** The fields of `config.json`, in camel case. */
export interface Gemma3Config extends DecoderConfig {
  /** The family: `model_type`. */
  modelType: "gemma3_text";
  /** The activation of the MLP's gate. */
  activation: ActivationName;
  /** Whether q, k, v and o have biases. */
  attentionBias: boolean;
  /** Scores are divided by its square root. */
  queryPreAttnScalar: number;
  /** The window of sliding-window layers: keys per query, its own included. */
  slidingWindow: number;
  /** The cap c of logits, c · tanh(x / c); undefined for none. */
  finalLogitSoftcapping: number | undefined;
  /** For each layer, whether it has a sliding window. */
  slidingLayers: readonly boolean[];
  /** Rotary position embedding of layers with full attention. */
  rope: RopeConfig;
  /** Rotary position embedding of sliding-window layers. */
  slidingRope: RopeConfig;
}

/** `Gemma3TextConfig` of transformers: the supported fields of `config.json`. */
export interface Gemma3ConfigFields extends DecoderConfigFields {
  /** Rows of the input embedding; 262,208 by default. */
  vocab_size?: number | undefined;
  /** 4 by default. */
  num_key_value_heads?: number | null | undefined;
  /** 256 by default. */
  head_dim?: number | undefined;
  /** gelu_pytorch_tanh by default. */
  hidden_activation?: string | undefined;
  /** 131,072 by default. */
  max_position_embeddings?: number | undefined;
  /** 1e-6 by default. */
  rms_norm_eps?: number | undefined;
  /** True by default. */
  tie_word_embeddings?: boolean | undefined;
  /** Whether q, k, v and o have biases; false by default. */
  attention_bias?: boolean | undefined;
  /** 256 by default. */
  query_pre_attn_scalar?: number | undefined;
  /** 4096 by default. */
  sliding_window?: number | undefined;
  /** `sliding_attention` or `full_attention` of each layer. */
  layer_types?: readonly string[] | null | undefined;
  /** Every n-th layer has full attention, where `layer_types` is absent; 6 by default. */
  sliding_window_pattern?: number | undefined;
  /** The rotary base of layers with full attention; 1,000,000 by default. */
  rope_theta?: number | undefined;
  /** The rotary base of sliding-window layers; 10,000 by default. */
  rope_local_base_freq?: number | undefined;
  /** The scaling of layers with full attention; see `LlamaConfigFields`. */
  rope_scaling?: Readonly<Record<string, unknown>> | null | undefined;
  /** The format of transformers 5: `rope_parameters` for each of `full_attention` and `sliding_attention`. */
  rope_parameters?: Readonly<Record<string, Readonly<Record<string, unknown>>>> | null | undefined;
  /** The cap c of logits, c · tanh(x / c); none by default. */
  final_logit_softcapping?: number | null | undefined;
}

const KINDS = ["full_attention", "sliding_attention"];

/** Reads the rotations of both kinds of layers, in the format of transformers 4 or 5. */
function readRotations(config: ConfigFields, positions: number): { full: RopeConfig; sliding: RopeConfig } {
  const parameters = config.readObject("rope_parameters");
  const readRotation = (kind: string, theta: number, spelling: Record<string, unknown>): RopeConfig => {
    const kindParameters = parameters?.readObject(kind);
    const fields = { rope_theta: theta, ...spelling, rope_parameters: kindParameters?.toObject() };
    return readRopeConfig(new ConfigFields(config.file, fields), positions);
  };
  const scaling = config.readObject("rope_scaling")?.toObject();
  return {
    full: readRotation("full_attention", config.readPositive("rope_theta") ?? 1e6, { rope_scaling: scaling }),
    sliding: readRotation("sliding_attention", config.readPositive("rope_local_base_freq") ?? 1e4, {}),
  };
}

function readSlidingLayers(config: ConfigFields, layers: number): boolean[] {
  const kinds = config.readWords("layer_types", KINDS, layers);
  const every = config.readSize("sliding_window_pattern", LIMIT.layers) ?? 6;
  if (kinds !== undefined) return kinds.map((kind) => kind === "sliding_attention");
  return Array.from({ length: layers }, (_, i) => (i + 1) % every !== 0);
}

/**
 * Reads a parsed `config.json` and, where there is one, `generation_config.json`, whose end tokens take precedence.
 *
 * Throws `ERR_UNSUPPORTED_MODEL` for an unsupported feature; `ERR_FILE_FORMAT` for a missing or invalid value.
 */
export function readGemma3Config(config: ConfigFields, generation?: ConfigFields): Gemma3Config {
  refuseQuantised(config);
  refuseTrue(config, "use_bidirectional_attention");
  if (config.readValue("attn_logit_softcapping") !== undefined)
    throw createRefusal(MODEL_REFUSALS.attentionCap, config.file, undefined, "ERR_UNSUPPORTED_MODEL");
  const layers = config.requireNumber("num_hidden_layers", "size", LIMIT.layers);
  const heads = config.requireNumber("num_attention_heads", "size", LIMIT.heads);
  const headDim = config.readSize("head_dim", LIMIT.headDim) ?? 256;
  if (headDim % 2 !== 0) throw config.createError("head_dim", "must be even for rotary positions");
  const positions = config.readSize("max_position_embeddings", LIMIT.positions) ?? 131_072;
  const { full, sliding } = readRotations(config, positions);
  const result: Gemma3Config = {
    modelType: "gemma3_text",
    vocabSize: config.readSize("vocab_size", LIMIT.vocabulary) ?? 262_208,
    hiddenSize: config.requireNumber("hidden_size", "size", LIMIT.width),
    intermediateSize: config.requireNumber("intermediate_size", "size", 4 * LIMIT.width),
    numHiddenLayers: layers,
    numAttentionHeads: heads,
    numKeyValueHeads: readKeyValueHeads(config, heads, 4),
    attentionDropout: readProbability(config, "attention_dropout", 0),
    headDim,
    activation: readActivation(config, "hidden_activation", "gelu_pytorch_tanh"),
    maxPositionEmbeddings: positions,
    rmsNormEps: config.readPositive("rms_norm_eps") ?? 1e-6,
    attentionBias: config.readBoolean("attention_bias") ?? false,
    queryPreAttnScalar: config.readPositive("query_pre_attn_scalar") ?? 256,
    slidingWindow: config.readSize("sliding_window", LIMIT.positions) ?? 4096,
    slidingLayers: readSlidingLayers(config, layers),
    finalLogitSoftcapping: config.readPositive("final_logit_softcapping"),
    tieWordEmbeddings: config.readBoolean("tie_word_embeddings") ?? true,
    rope: full,
    slidingRope: sliding,
    ...readSpecialIds(config, generation),
    ...readWeightsConfig(config),
  };
  checkCount(config, countDecoderValues(result));
  return result;
}

/** Returns the configuration as a `config.json` for any transformers with this family, and for `readGemma3Config`. */
export function writeGemma3Config(config: Gemma3Config): Record<string, unknown> {
  const { rope_theta: rope_local_base_freq } = writeRope(config.slidingRope);
  return {
    architectures: ["Gemma3ForCausalLM"],
    ...writeSizes(config),
    head_dim: config.headDim,
    hidden_activation: config.activation,
    attention_bias: config.attentionBias,
    query_pre_attn_scalar: config.queryPreAttnScalar,
    sliding_window: config.slidingWindow,
    layer_types: config.slidingLayers.map((on) => (on ? "sliding_attention" : "full_attention")),
    ...(config.finalLogitSoftcapping !== undefined && {
      final_logit_softcapping: config.finalLogitSoftcapping,
    }),
    ...writeRope(config.rope),
    rope_local_base_freq,
    ...writeSpecialIds(config),
  };
}
