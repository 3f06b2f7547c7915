/** Configuration fields and checks that all families share. */
import type { ConfigFields } from "./config-fields.js";
import { MODEL_REFUSALS } from "../refusals/models.js";
import { createRefusal } from "../refusals/refusal.js";

/** Upper bounds that no real model exceeds, checked before anything is allocated. */
export const LIMIT = {
  vocabulary: 2 ** 22,
  width: 2 ** 18,
  layers: 4096,
  heads: 4096,
  headDim: 4096,
  positions: 2 ** 28,
  labels: 2 ** 20,
  values: 2 ** 41,
};

/** Throws where the sizes multiply to more weights than any real model has. */
export function checkCount(config: ConfigFields, values: number): void {
  if (values <= LIMIT.values) return;
  throw config.createFailure(`these sizes make ${values.toExponential(1)} weights, more than any model has`);
}

export function refuseQuantised(config: ConfigFields): void {
  if (config.readValue("quantization_config") === undefined) return;
  throw createRefusal(MODEL_REFUSALS.quantised, config.file, undefined, "ERR_UNSUPPORTED_MODEL");
}

/** Throws where one of `keys` is true; such a key changes the model's computation in an unsupported way. */
export function refuseTrue(config: ConfigFields, ...keys: string[]): void {
  for (const key of keys) {
    if (config.readBoolean(key) !== true) continue;
    throw createRefusal(MODEL_REFUSALS.decoding, config.file, key, "ERR_UNSUPPORTED_MODEL");
  }
}

/** Configuration fields of a transformer's blocks. */
export interface BlocksConfig {
  /** Channels of the hidden states. */
  hiddenSize: number;
  /** Hidden channels of each MLP. */
  intermediateSize: number;
  /** Number of blocks. */
  numHiddenLayers: number;
  /** Number of query heads. */
  numAttentionHeads: number;
  /** Dropout of the attention weights in training. */
  attentionDropout: number;
  /** The weights' dtype as named in the file, such as `bfloat16`. */
  dtype: string | undefined;
  /** The standard deviation of randomly initialised weights. */
  initializerRange: number;
}

/** Returns the block sizes as fields of `config.json`. */
export function writeBlocks(config: BlocksConfig): Record<string, unknown> {
  return {
    hidden_size: config.hiddenSize,
    intermediate_size: config.intermediateSize,
    num_hidden_layers: config.numHiddenLayers,
    num_attention_heads: config.numAttentionHeads,
  };
}

/** Counts the matrix weights of blocks with attention and an MLP of two matrices. */
export function countBlockValues({ hiddenSize: C, intermediateSize, numHiddenLayers }: BlocksConfig): number {
  return numHiddenLayers * (4 * C ** 2 + 2 * C * intermediateSize);
}

export interface SpecialIds {
  /** The id at the start of a text; undefined for none. */
  bosTokenId: number | undefined;
  /** Ids that end a generation. */
  eosTokenIds: readonly number[];
  /** The padding id; undefined for none. */
  padTokenId: number | undefined;
}

/** Reads the special token ids; `generation_config.json` takes precedence over `config.json`. */
export function readSpecialIds(config: ConfigFields, generation: ConfigFields | undefined): SpecialIds {
  const endings = generation?.readTokens("eos_token_id") ?? [];
  return {
    bosTokenId: generation?.readToken("bos_token_id") ?? config.readToken("bos_token_id"),
    eosTokenIds: endings.length > 0 ? endings : config.readTokens("eos_token_id"),
    padTokenId: generation?.readToken("pad_token_id") ?? config.readToken("pad_token_id"),
  };
}

/** Returns the special token ids as fields of `config.json`. */
export function writeSpecialIds({
  bosTokenId,
  eosTokenIds,
  padTokenId,
}: SpecialIds): Record<string, unknown> {
  return {
    bos_token_id: bosTokenId ?? null,
    eos_token_id:
      eosTokenIds.length === 1 ? eosTokenIds[0] : eosTokenIds.length === 0 ? null : [...eosTokenIds],
    pad_token_id: padTokenId ?? null,
  };
}

/**
 * Reads the weights' dtype and their initial standard deviation, from the key `range`; 0.02 by default, as in
 * transformers.
 */
export function readWeightsConfig(
  config: ConfigFields,
  range = "initializer_range",
): Pick<BlocksConfig, "dtype" | "initializerRange"> {
  return {
    dtype: config.readString("dtype") ?? config.readString("torch_dtype"),
    initializerRange: config.readValue(range) === 0 ? 0 : (config.readPositive(range) ?? 0.02),
  };
}

/** Returns the dtype and the standard deviation as fields of `config.json`. */
export function writeWeightsConfig(
  { dtype, initializerRange }: Pick<BlocksConfig, "dtype" | "initializerRange">,
  range = "initializer_range",
): Record<string, unknown> {
  return { [range]: initializerRange, ...(dtype !== undefined && { torch_dtype: dtype }) };
}

/** Reads a probability, from 0 to 1; `otherwise` where it is absent. */
export function readProbability(config: ConfigFields, key: string, otherwise: number): number {
  const value = config.readValue(key) ?? otherwise;
  if (typeof value !== "number" || !(value >= 0 && value <= 1))
    throw config.createError(key, "must be a probability");
  return value;
}
