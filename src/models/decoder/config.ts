/** Configuration shared by language models with rotary positions and a gated MLP. */
import type { ConfigFields } from "../config-fields.js";
import {
  writeBlocks,
  writeWeightsConfig,
  LIMIT,
  type BlocksConfig,
  type SpecialIds,
} from "../config-parts.js";
import type { TextConfigFields } from "../from-config.js";
import type { RopeConfig } from "./rope.js";

/** The fields of `config.json` that these models share, in camel case. */
export interface DecoderConfig extends BlocksConfig, SpecialIds {
  /** The family: `model_type`. */
  modelType: string;
  /** Rows of the input embedding. */
  vocabSize: number;
  /** Number of key/value heads; below the number of query heads, each serves a group of them. */
  numKeyValueHeads: number;
  /** Channels of a head. */
  headDim: number;
  /** The longest text, in tokens. */
  maxPositionEmbeddings: number;
  /** The epsilon of RMSNorm. */
  rmsNormEps: number;
  /** Whether the head shares the input embedding's weight. */
  tieWordEmbeddings: boolean;
  /** Rotary position embedding. */
  rope: RopeConfig;
}

/** Fields of `config.json` that these models share. */
export interface DecoderConfigFields extends TextConfigFields {
  /** Channels of the hidden states. */
  hidden_size: number;
  /** Hidden channels of each MLP. */
  intermediate_size: number;
  /** Number of blocks. */
  num_hidden_layers: number;
  /** Number of query heads. */
  num_attention_heads: number;
  /** Dropout of the attention weights in training; 0. */
  attention_dropout?: number | undefined;
}

/** Reads `num_key_value_heads`: null means the number of query heads, and a missing field means `otherwise`. */
export function readKeyValueHeads(config: ConfigFields, heads: number, otherwise = heads): number {
  const given =
    config.readSize("num_key_value_heads", LIMIT.heads) ??
    (config.has("num_key_value_heads") ? heads : otherwise);
  if (heads % given !== 0) throw config.createError("num_key_value_heads", `must divide ${heads} heads`);
  return given;
}

/** Counts the matrix weights that the sizes imply. */
export function countDecoderValues(c: DecoderConfig): number {
  const attention = 2 * c.hiddenSize * c.headDim * (c.numAttentionHeads + c.numKeyValueHeads);
  const mlp = 3 * c.hiddenSize * c.intermediateSize;
  const embeddings = c.vocabSize * c.hiddenSize * (c.tieWordEmbeddings ? 1 : 2);
  return embeddings + c.numHiddenLayers * (attention + mlp);
}

/** Returns the shared fields as `config.json` names them, without rotation and special tokens. */
export function writeSizes(config: DecoderConfig): Record<string, unknown> {
  return {
    model_type: config.modelType,
    vocab_size: config.vocabSize,
    ...writeBlocks(config),
    num_key_value_heads: config.numKeyValueHeads,
    max_position_embeddings: config.maxPositionEmbeddings,
    rms_norm_eps: config.rmsNormEps,
    attention_dropout: config.attentionDropout,
    tie_word_embeddings: config.tieWordEmbeddings,
    ...writeWeightsConfig(config),
  };
}
