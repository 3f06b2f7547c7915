/** The configuration of GPT-2, with its own field names (`n_embd`) or the common ones (`hidden_size`). */
import { readActivation, type ActivationName } from "../activation.js";
import { ConfigFields } from "../config-fields.js";
import type { TextConfigFields } from "../from-config.js";
import {
  countBlockValues,
  checkCount,
  writeSpecialIds,
  writeWeightsConfig,
  LIMIT,
  readProbability,
  refuseQuantised,
  refuseTrue,
  readSpecialIds,
  readWeightsConfig,
  type BlocksConfig,
  type SpecialIds,
} from "../config-parts.js";

/** The fields of `config.json`, in camel case. */
export interface GPT2Config extends BlocksConfig, SpecialIds {
  /** The family: `model_type`. */
  modelType: "gpt2";
  /** Rows of the input embedding. */
  vocabSize: number;
  /** The longest text, in tokens. */
  maxPositionEmbeddings: number;
  /** The epsilon of LayerNorm. */
  layerNormEps: number;
  /** The activation of each MLP. */
  activation: ActivationName;
  /** Whether scores are divided by √D. */
  scaleAttnWeights: boolean;
  /** Whether scores are also divided by the layer's number, counted from 1. */
  scaleAttnByInverseLayerIdx: boolean;
  /** Dropout of the embeddings. */
  embdPdrop: number;
  /** Dropout before residual sums. */
  residPdrop: number;
  /** Whether the head shares the input embedding's weight. */
  tieWordEmbeddings: boolean;
}

/** `GPT2Config` of transformers: the supported fields of `config.json`, with their defaults. */
export interface GPT2ConfigFields extends TextConfigFields {
  /** 50,257. */
  vocab_size?: number | undefined;
  /** 1024. */
  n_positions?: number | undefined;
  /** 768. */
  n_embd?: number | undefined;
  /** 12. */
  n_layer?: number | undefined;
  /** 12. */
  n_head?: number | undefined;
  /** 4 · n_embd. */
  n_inner?: number | null | undefined;
  /** gelu_new. */
  activation_function?: string | undefined;
  /** 1e-5. */
  layer_norm_epsilon?: number | undefined;
  /** Dropout of the embeddings; 0.1. */
  embd_pdrop?: number | undefined;
  /** Dropout before residual sums; 0.1. */
  resid_pdrop?: number | undefined;
  /** Dropout of the attention weights; 0.1. */
  attn_pdrop?: number | undefined;
  /** Whether scores are divided by √D; true. */
  scale_attn_weights?: boolean | undefined;
  /** Whether scores are also divided by the layer's number, counted from 1; false. */
  scale_attn_by_inverse_layer_idx?: boolean | undefined;
  /** True. */
  tie_word_embeddings?: boolean | undefined;
}

/** The end-of-text id, transformers' default. */
const END_OF_TEXT = 50_256;

/**
 * Reads a parsed `config.json` and, where there is one, `generation_config.json`.
 *
 * Throws `ERR_UNSUPPORTED_MODEL` for an unsupported feature; `ERR_FILE_FORMAT` for a missing
 * or invalid value.
 */
export function readGpt2Config(
  json: Record<string, unknown> | ConfigFields,
  generation?: ConfigFields,
): GPT2Config {
  const config = json instanceof ConfigFields ? json : new ConfigFields("config.json", json);
  refuseQuantised(config);
  refuseTrue(config, "add_cross_attention");
  /** Reads a size from the first of several keys that is present. */
  const size = (limit: number, otherwise: number, ...keys: string[]): number => {
    for (const key of keys) {
      const value = config.readSize(key, limit);
      if (value !== undefined) return value;
    }
    return otherwise;
  };
  const hiddenSize = size(LIMIT.width, 768, "n_embd", "hidden_size");
  const heads = size(LIMIT.heads, 12, "n_head", "num_attention_heads");
  if (hiddenSize % heads !== 0) {
    throw config.createFailure(`${heads} heads (n_head) do not divide ${hiddenSize} (n_embd)`);
  }
  const ids = readSpecialIds(config, generation);
  const result: GPT2Config = {
    modelType: "gpt2",
    vocabSize: size(LIMIT.vocabulary, 50_257, "vocab_size"),
    hiddenSize,
    intermediateSize: size(4 * LIMIT.width, 4 * hiddenSize, "n_inner", "intermediate_size"),
    numHiddenLayers: size(LIMIT.layers, 12, "n_layer", "num_hidden_layers"),
    numAttentionHeads: heads,
    maxPositionEmbeddings: size(LIMIT.positions, 1024, "n_positions", "max_position_embeddings", "n_ctx"),
    layerNormEps: config.readPositive("layer_norm_epsilon") ?? 1e-5,
    activation: readActivation(config, "activation_function", "gelu_new"),
    scaleAttnWeights: config.readBoolean("scale_attn_weights") ?? true,
    scaleAttnByInverseLayerIdx: config.readBoolean("scale_attn_by_inverse_layer_idx") ?? false,
    embdPdrop: readProbability(config, "embd_pdrop", 0.1),
    residPdrop: readProbability(config, "resid_pdrop", 0.1),
    attentionDropout: readProbability(config, "attn_pdrop", 0.1),
    tieWordEmbeddings: config.readBoolean("tie_word_embeddings") ?? true,
    ...ids,
    bosTokenId: ids.bosTokenId ?? (config.has("bos_token_id") ? undefined : END_OF_TEXT),
    eosTokenIds: ids.eosTokenIds.length > 0 || config.has("eos_token_id") ? ids.eosTokenIds : [END_OF_TEXT],
    ...readWeightsConfig(config),
  };
  const rows = result.vocabSize + result.maxPositionEmbeddings;
  checkCount(config, rows * hiddenSize + countBlockValues(result));
  return result;
}

/** Returns the configuration as a `config.json` for transformers 4.40 or later, and for `readGpt2Config`. */
export function writeGpt2Config(config: GPT2Config): Record<string, unknown> {
  return {
    architectures: ["GPT2LMHeadModel"],
    model_type: "gpt2",
    vocab_size: config.vocabSize,
    n_positions: config.maxPositionEmbeddings,
    n_embd: config.hiddenSize,
    n_layer: config.numHiddenLayers,
    n_head: config.numAttentionHeads,
    n_inner: config.intermediateSize,
    activation_function: config.activation,
    embd_pdrop: config.embdPdrop,
    resid_pdrop: config.residPdrop,
    attn_pdrop: config.attentionDropout,
    layer_norm_epsilon: config.layerNormEps,
    scale_attn_weights: config.scaleAttnWeights,
    scale_attn_by_inverse_layer_idx: config.scaleAttnByInverseLayerIdx,
    tie_word_embeddings: config.tieWordEmbeddings,
    ...writeSpecialIds(config),
    ...writeWeightsConfig(config),
  };
}
