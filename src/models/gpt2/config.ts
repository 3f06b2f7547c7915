/** The configuration of GPT-2, in its own spelling (`n_embd`) or the common one (`hidden_size`). */
import { activationField, type ActivationName } from "../activation.js";
import { ConfigFields } from "../config-fields.js";
import type { TextConfigFields } from "../from-config.js";
import {
  blockValues,
  checkCount,
  hubSpecialIds,
  hubWeights,
  LIMIT,
  probability,
  refuseQuantised,
  refuseTrue,
  specialIds,
  weightsConfig,
  type BlocksConfig,
  type SpecialIds,
} from "../config-parts.js";

/** What `config.json` says, in one spelling. */
export interface GPT2Config extends BlocksConfig, SpecialIds {
  /** The family, as `model_type` names it. */
  modelType: "gpt2";
  /** Rows of the input embedding. */
  vocabSize: number;
  /** The longest text. */
  maxPositionEmbeddings: number;
  /** Added to the variance in norms. */
  layerNormEps: number;
  /** What each MLP applies. */
  activation: ActivationName;
  /** Whether scores are divided by √D. */
  scaleAttnWeights: boolean;
  /** Whether scores are divided by the layer's number, from 1. */
  scaleAttnByInverseLayerIdx: boolean;
  /** Dropout of the embeddings. */
  embdPdrop: number;
  /** Dropout of what a block adds. */
  residPdrop: number;
  /** Whether the head's weight is the input embedding's. */
  tieWordEmbeddings: boolean;
}

/** `GPT2Config` of transformers: the fields of `config.json` that are read, and what they are unless given. */
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
  /** Dropout of the embeddings: 0.1. */
  embd_pdrop?: number | undefined;
  /** Dropout of what a block adds: 0.1. */
  resid_pdrop?: number | undefined;
  /** Dropout of the attention's weights: 0.1. */
  attn_pdrop?: number | undefined;
  /** Whether scores are divided by √D: true. */
  scale_attn_weights?: boolean | undefined;
  /** Whether scores are divided by the layer's number, from 1: false. */
  scale_attn_by_inverse_layer_idx?: boolean | undefined;
  /** True. */
  tie_word_embeddings?: boolean | undefined;
}

/** transformers' end-of-text. */
const END_OF_TEXT = 50_256;

/**
 * Reads a parsed `config.json` and, where there is one, `generation_config.json`.
 *
 * Errors: `ERR_UNSUPPORTED_MODEL` for a feature that is not built; `ERR_FILE_FORMAT` for a missing
 * or senseless value.
 */
export function gpt2Config(
  json: Record<string, unknown> | ConfigFields,
  generation?: ConfigFields,
): GPT2Config {
  const config = json instanceof ConfigFields ? json : new ConfigFields("config.json", json);
  refuseQuantised(config);
  refuseTrue(config, "add_cross_attention");
  /** A size under any of its names; the first is the one that an error names. */
  const size = (limit: number, otherwise: number, ...keys: string[]): number => {
    for (const key of keys) {
      const value = config.size(key, limit);
      if (value !== undefined) return value;
    }
    return otherwise;
  };
  const hiddenSize = size(LIMIT.width, 768, "n_embd", "hidden_size");
  const heads = size(LIMIT.heads, 12, "n_head", "num_attention_heads");
  if (hiddenSize % heads !== 0) {
    throw config.failure(`${heads} heads (n_head) do not divide ${hiddenSize} (n_embd)`);
  }
  const ids = specialIds(config, generation);
  const result: GPT2Config = {
    modelType: "gpt2",
    vocabSize: size(LIMIT.vocabulary, 50_257, "vocab_size"),
    hiddenSize,
    intermediateSize: size(4 * LIMIT.width, 4 * hiddenSize, "n_inner", "intermediate_size"),
    numHiddenLayers: size(LIMIT.layers, 12, "n_layer", "num_hidden_layers"),
    numAttentionHeads: heads,
    maxPositionEmbeddings: size(LIMIT.positions, 1024, "n_positions", "max_position_embeddings", "n_ctx"),
    layerNormEps: config.positive("layer_norm_epsilon") ?? 1e-5,
    activation: activationField(config, "activation_function", "gelu_new"),
    scaleAttnWeights: config.boolean("scale_attn_weights") ?? true,
    scaleAttnByInverseLayerIdx: config.boolean("scale_attn_by_inverse_layer_idx") ?? false,
    embdPdrop: probability(config, "embd_pdrop", 0.1),
    residPdrop: probability(config, "resid_pdrop", 0.1),
    attentionDropout: probability(config, "attn_pdrop", 0.1),
    tieWordEmbeddings: config.boolean("tie_word_embeddings") ?? true,
    ...ids,
    bosTokenId: ids.bosTokenId ?? (config.has("bos_token_id") ? undefined : END_OF_TEXT),
    eosTokenIds: ids.eosTokenIds.length > 0 || config.has("eos_token_id") ? ids.eosTokenIds : [END_OF_TEXT],
    ...weightsConfig(config),
  };
  const rows = result.vocabSize + result.maxPositionEmbeddings;
  checkCount(config, rows * hiddenSize + blockValues(result));
  return result;
}

/** The configuration as a `config.json` that every transformers from 4.40 on reads, and `gpt2Config` too. */
export function hubConfig(config: GPT2Config): Record<string, unknown> {
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
    ...hubSpecialIds(config),
    ...hubWeights(config),
  };
}
