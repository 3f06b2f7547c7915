/** What the configurations of all families have in common. */
import type { ConfigFields } from "./config-fields.js";
import { MODEL_REFUSALS } from "../refusals/models.js";
import { refused } from "../refusals/refusal.js";

/** Above these no model is real; they are checked before anything is allocated. */
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

/** Refuses sizes that multiply to more weights than any model has. */
export function checkCount(config: ConfigFields, values: number): void {
  if (values <= LIMIT.values) return;
  throw config.failure(`these sizes make ${values.toExponential(1)} weights, more than any model has`);
}

export function refuseQuantised(config: ConfigFields): void {
  if (config.value("quantization_config") === undefined) return;
  throw refused(MODEL_REFUSALS.quantised, config.file, undefined, "ERR_UNSUPPORTED_MODEL");
}

/** Refuses a key that is set to true and changes what a model computes. */
export function refuseTrue(config: ConfigFields, ...keys: string[]): void {
  for (const key of keys) {
    if (config.boolean(key) !== true) continue;
    throw refused(MODEL_REFUSALS.decoding, config.file, key, "ERR_UNSUPPORTED_MODEL");
  }
}

/** What the configurations of all families of blocks of one kind have. */
export interface BlocksConfig {
  /** Channels of the hidden states. */
  hiddenSize: number;
  /** Channels inside each MLP. */
  intermediateSize: number;
  /** Blocks. */
  numHiddenLayers: number;
  /** Heads of the queries. */
  numAttentionHeads: number;
  /** Dropout of the attention's weights in training. */
  attentionDropout: number;
  /** Storage of the weights as the file names it, such as `bfloat16`. */
  dtype: string | undefined;
  /** The deviation of weights that are drawn. */
  initializerRange: number;
}

/** The sizes of blocks as `config.json` has them. */
export function hubBlocks(config: BlocksConfig): Record<string, unknown> {
  return {
    hidden_size: config.hiddenSize,
    intermediate_size: config.intermediateSize,
    num_hidden_layers: config.numHiddenLayers,
    num_attention_heads: config.numAttentionHeads,
  };
}

/** Weights of the matrices in blocks of attention and an MLP of two products, as the sizes have them. */
export function blockValues({ hiddenSize: C, intermediateSize, numHiddenLayers }: BlocksConfig): number {
  return numHiddenLayers * (4 * C ** 2 + 2 * C * intermediateSize);
}

export interface SpecialIds {
  /** The id that texts begin with; undefined for none. */
  bosTokenId: number | undefined;
  /** Each of them ends a generation. */
  eosTokenIds: readonly number[];
  /** The id of padding; undefined for none. */
  padTokenId: number | undefined;
}

/** Special tokens; those of `generation_config.json`, where there is one, go before. */
export function specialIds(config: ConfigFields, generation: ConfigFields | undefined): SpecialIds {
  const endings = generation?.tokens("eos_token_id") ?? [];
  return {
    bosTokenId: generation?.token("bos_token_id") ?? config.token("bos_token_id"),
    eosTokenIds: endings.length > 0 ? endings : config.tokens("eos_token_id"),
    padTokenId: generation?.token("pad_token_id") ?? config.token("pad_token_id"),
  };
}

/** Special tokens as `config.json` has them. */
export function hubSpecialIds({ bosTokenId, eosTokenIds, padTokenId }: SpecialIds): Record<string, unknown> {
  return {
    bos_token_id: bosTokenId ?? null,
    eos_token_id:
      eosTokenIds.length === 1 ? eosTokenIds[0] : eosTokenIds.length === 0 ? null : [...eosTokenIds],
    pad_token_id: padTokenId ?? null,
  };
}

/** Storage of the weights, and the deviation of those that are drawn: 0.02 unless given under `range`, as in transformers. */
export function weightsConfig(
  config: ConfigFields,
  range = "initializer_range",
): Pick<BlocksConfig, "dtype" | "initializerRange"> {
  return {
    dtype: config.string("dtype") ?? config.string("torch_dtype"),
    initializerRange: config.value(range) === 0 ? 0 : (config.positive(range) ?? 0.02),
  };
}

/** The same as `config.json` has it. */
export function hubWeights(
  { dtype, initializerRange }: Pick<BlocksConfig, "dtype" | "initializerRange">,
  range = "initializer_range",
): Record<string, unknown> {
  return { [range]: initializerRange, ...(dtype !== undefined && { torch_dtype: dtype }) };
}

/** A probability: of dropout, of which 1 is none. */
export function probability(config: ConfigFields, key: string, otherwise: number): number {
  const value = config.value(key) ?? otherwise;
  if (typeof value !== "number" || !(value >= 0 && value <= 1))
    throw config.error(key, "must be a probability");
  return value;
}
