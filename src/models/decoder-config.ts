/** What the configurations of language models with rotary positions and a gated MLP have in common. */
import type { ConfigFields } from "./config-fields.js";
import { hubBlocks, hubWeights, LIMIT, type BlocksConfig, type SpecialIds } from "./config-parts.js";
import type { TextConfigFields } from "./from-config.js";
import type { RopeConfig } from "./llama/rope.js";

/** What `config.json` says of any of them, in one spelling. */
export interface DecoderConfig extends BlocksConfig, SpecialIds {
  /** The family, as `model_type` names it. */
  modelType: string;
  /** Rows of the input embedding. */
  vocabSize: number;
  /** Heads of the keys and values; each serves several of the queries where they are fewer. */
  numKeyValueHeads: number;
  /** Channels of a head. */
  headDim: number;
  /** The longest text. */
  maxPositionEmbeddings: number;
  /** Added to the mean square in norms. */
  rmsNormEps: number;
  /** Whether the head's weight is the input embedding's. */
  tieWordEmbeddings: boolean;
  /** Rotary position embedding. */
  rope: RopeConfig;
}

/** Fields of `config.json` that all of them have. */
export interface DecoderConfigFields extends TextConfigFields {
  /** Channels of the hidden states. */
  hidden_size: number;
  /** Channels inside each MLP. */
  intermediate_size: number;
  /** Blocks. */
  num_hidden_layers: number;
  /** Heads of the queries. */
  num_attention_heads: number;
  /** Dropout of the attention's weights in training; 0. */
  attention_dropout?: number | undefined;
}

/** `num_key_value_heads`: null is as many as heads, and what is not there is `otherwise`. */
export function keyValueHeads(config: ConfigFields, heads: number, otherwise = heads): number {
  const given =
    config.size("num_key_value_heads", LIMIT.heads) ??
    (config.has("num_key_value_heads") ? heads : otherwise);
  if (heads % given !== 0) throw config.error("num_key_value_heads", `must divide ${heads} heads`);
  return given;
}

/** Weights of the matrices, as the sizes have them. */
export function decoderValues(c: DecoderConfig): number {
  const attention = 2 * c.hiddenSize * c.headDim * (c.numAttentionHeads + c.numKeyValueHeads);
  const mlp = 3 * c.hiddenSize * c.intermediateSize;
  const embeddings = c.vocabSize * c.hiddenSize * (c.tieWordEmbeddings ? 1 : 2);
  return embeddings + c.numHiddenLayers * (attention + mlp);
}

/** The fields of any of them as `config.json` has them, but for rotation, special tokens and what is a family's own. */
export function hubSizes(config: DecoderConfig): Record<string, unknown> {
  return {
    model_type: config.modelType,
    vocab_size: config.vocabSize,
    ...hubBlocks(config),
    num_key_value_heads: config.numKeyValueHeads,
    max_position_embeddings: config.maxPositionEmbeddings,
    rms_norm_eps: config.rmsNormEps,
    attention_dropout: config.attentionDropout,
    tie_word_embeddings: config.tieWordEmbeddings,
    ...hubWeights(config),
  };
}
