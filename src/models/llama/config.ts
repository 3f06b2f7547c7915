/** The configuration of the Llama family: Llama 2 and 3, SmolLM2, Mistral, Qwen2 and Qwen3. */
import { LowrankError } from "../../errors.js";
import { ConfigFields } from "../config-fields.js";
import {
  checkCount,
  writeSpecialIds,
  LIMIT,
  readProbability,
  refuseQuantised,
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
import { checkFactors, writeRope, readRopeConfig } from "../decoder/rope.js";
import { MODEL_TYPES, VARIANTS, type LlamaModelType, type Variant } from "./variants.js";

export { computeFrequencies as ropeFrequencies } from "../decoder/rope.js";

export type { LlamaModelType } from "./variants.js";

/** The fields of `config.json`, in camel case. */
export interface LlamaConfig extends DecoderConfig {
  /** The family: `model_type`. */
  modelType: LlamaModelType;
  /** Whether q, k and v have biases. */
  attentionBias: boolean;
  /** Whether o has a bias. */
  attentionOutputBias: boolean;
  /** Whether the queries and keys of each head are normalised. */
  headNorms: boolean;
  /** Whether gate, up and down have biases. */
  mlpBias: boolean;
  /** The sliding window: keys per query, its own included; undefined for no limit. */
  slidingWindow: number | undefined;
  /** For each layer, whether it has the window; by default all layers do. */
  slidingLayers: readonly boolean[] | undefined;
}

/**
 * `LlamaConfig`, `MistralConfig`, `Qwen2Config` and `Qwen3Config` of transformers: the supported fields of
 * `config.json`.
 */
export interface LlamaConfigFields extends DecoderConfigFields {
  /** Rows of the input embedding. */
  vocab_size: number;
  /** By default the number of heads; 8 for Mistral, 32 for Qwen. */
  num_key_value_heads?: number | null | undefined;
  /** By default hidden_size / heads; 128 for Qwen3. */
  head_dim?: number | null | undefined;
  /** silu or its alias swish. */
  hidden_act?: string | undefined;
  /** 2048 by default; 131,072 for Mistral, 32,768 for Qwen. */
  max_position_embeddings?: number | undefined;
  /** 1e-6 by default. */
  rms_norm_eps?: number | undefined;
  /** False by default. */
  tie_word_embeddings?: boolean | undefined;
  /** 10,000 by default. */
  rope_theta?: number | undefined;
  /** `rope_type` default, linear, dynamic, llama3, yarn or longrope, with its parameters. */
  rope_scaling?: Readonly<Record<string, unknown>> | null | undefined;
  /** The format of transformers 5: `rope_theta` and the contents of `rope_scaling` in one object. */
  rope_parameters?: Readonly<Record<string, unknown>> | null | undefined;
  /**
   * For Llama and Qwen3: whether q, k, v and o have biases; false by default. In Qwen2, q, k and v always have them.
   */
  attention_bias?: boolean | undefined;
  /** Whether gate, up and down have biases; false by default. */
  mlp_bias?: boolean | undefined;
  /** For Mistral and Qwen: 4096 by default, null for no window. */
  sliding_window?: number | null | undefined;
  /** For Qwen: whether to use the window at all; false by default. */
  use_sliding_window?: boolean | undefined;
  /** For Qwen: the first layer with the window; 28 by default. */
  max_window_layers?: number | undefined;
  /** For Qwen: `full_attention` or `sliding_attention` for each layer; overrides `max_window_layers`. */
  layer_types?: readonly string[] | null | undefined;
}

const DEFAULT_EPS = 1e-6;
const ACTIVATIONS = new Set(["silu", "swish"]);

function readModelType(config: ConfigFields): LlamaModelType {
  const type = config.readString("model_type");
  if (type === undefined)
    throw config.createError("model_type", `is missing; supported are ${MODEL_TYPES.join(", ")}`);
  const found = MODEL_TYPES.find((known) => known === type);
  if (found !== undefined) return found;
  const message = `model_type "${type}" is not supported; supported are ${MODEL_TYPES.join(", ")}`;
  throw new LowrankError("ERR_UNSUPPORTED_MODEL", `${config.file}: ${message}`);
}

function refuseUnsupported(config: ConfigFields): void {
  const act = config.readString("hidden_act") ?? "silu";
  if (!ACTIVATIONS.has(act)) {
    const message = `hidden_act "${act}" is not supported; supported is silu`;
    throw new LowrankError("ERR_UNSUPPORTED_MODEL", `${config.file}: ${message}`);
  }
  refuseQuantised(config);
}

/** Reads `head_dim`, or computes it as hidden_size / heads. */
function readHeadSize(config: ConfigFields, hiddenSize: number, heads: number, fallback?: number): number {
  const given = config.readSize("head_dim", LIMIT.headDim) ?? (config.has("head_dim") ? undefined : fallback);
  if (given === undefined && hiddenSize % heads !== 0) {
    throw config.createError("num_attention_heads", `must divide hidden_size (${hiddenSize})`);
  }
  const headDim = given ?? hiddenSize / heads;
  if (headDim % 2 !== 0)
    throw config.createError("head_dim", `must be even for rotary positions; it comes to ${headDim}`);
  return headDim;
}

/**
 * Reads a parsed `config.json` and, where there is one, `generation_config.json`, whose end tokens take precedence.
 *
 * Throws `ERR_UNSUPPORTED_MODEL` for another family or an unsupported feature; `ERR_FILE_FORMAT` for a missing or
 * invalid value.
 */
export function readLlamaConfig(
  json: Record<string, unknown> | ConfigFields,
  generation?: ConfigFields,
): LlamaConfig {
  const config = json instanceof ConfigFields ? json : new ConfigFields("config.json", json);
  const type = readModelType(config);
  refuseUnsupported(config);
  const variant: Variant = VARIANTS[type];
  const hiddenSize = config.requireNumber("hidden_size", "size", LIMIT.width);
  const heads = config.requireNumber("num_attention_heads", "size", LIMIT.heads);
  const positions = config.readSize("max_position_embeddings", LIMIT.positions) ?? variant.positions;
  const layers = config.requireNumber("num_hidden_layers", "size", LIMIT.layers);
  const windows = variant.windows(config, layers);
  const biases = variant.biases(config);
  const result: LlamaConfig = {
    modelType: type,
    vocabSize: config.requireNumber("vocab_size", "size", LIMIT.vocabulary),
    hiddenSize,
    intermediateSize: config.requireNumber("intermediate_size", "size", 4 * LIMIT.width),
    numHiddenLayers: layers,
    numAttentionHeads: heads,
    numKeyValueHeads: readKeyValueHeads(config, heads, variant.keyValueHeads),
    attentionDropout: readProbability(config, "attention_dropout", 0),
    headDim: readHeadSize(config, hiddenSize, heads, variant.headDim),
    maxPositionEmbeddings: positions,
    rmsNormEps: config.readPositive("rms_norm_eps") ?? DEFAULT_EPS,
    attentionBias: biases.inputs,
    attentionOutputBias: biases.output,
    headNorms: variant.headNorms,
    mlpBias: variant.mlpBias(config),
    slidingWindow: windows.size,
    slidingLayers: windows.layers,
    tieWordEmbeddings: config.readBoolean("tie_word_embeddings") ?? false,
    rope: readRopeConfig(config, positions),
    ...readSpecialIds(config, generation),
    ...readWeightsConfig(config),
  };
  checkFactors(config, result.rope, result.headDim);
  checkCount(config, countDecoderValues(result));
  return result;
}

/** Returns the configuration as a `config.json` for transformers 4.40 or later, and for `readLlamaConfig`. */
export function writeLlamaConfig(config: LlamaConfig): Record<string, unknown> {
  return {
    architectures: [VARIANTS[config.modelType].architecture],
    ...writeSizes(config),
    head_dim: config.headDim,
    hidden_act: "silu",
    ...writeRope(config.rope),
    ...writeSpecialIds(config),
    ...listVariantFields(config),
  };
}

/** Returns the fields specific to each variant. */
function listVariantFields(config: LlamaConfig): Record<string, unknown> {
  const { modelType: type, attentionBias: attention_bias, slidingWindow, slidingLayers } = config;
  if (type === "mistral") return { sliding_window: slidingWindow ?? null };
  if (type === "llama") return { attention_bias, mlp_bias: config.mlpBias };
  const slides = slidingLayers ?? Array.from({ length: config.numHiddenLayers }, () => false);
  const first = slides.indexOf(true);
  return {
    ...(type === "qwen3" && { attention_bias }),
    use_sliding_window: first >= 0,
    sliding_window: slidingWindow ?? null,
    // For versions of transformers without layer_types.
    max_window_layers: first < 0 ? config.numHiddenLayers : first,
    layer_types: slides.map((on) => (on ? "sliding_attention" : "full_attention")),
  };
}
