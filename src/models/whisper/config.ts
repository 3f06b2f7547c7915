/** The configuration of Whisper. */
import { readActivation, type ActivationName } from "../activation.js";
import { ConfigFields } from "../config-fields.js";
import {
  checkCount,
  writeSpecialIds,
  writeWeightsConfig,
  LIMIT,
  readProbability,
  refuseQuantised,
  readSpecialIds,
  readWeightsConfig,
  type SpecialIds,
} from "../config-parts.js";
import type { CommonConfigFields, TextConfigFields } from "../from-config.js";
import { readWhisperGeneration, type WhisperGeneration } from "./generation.js";

/** The fields of `config.json`, in camel case. */
export interface WhisperConfig extends SpecialIds {
  /** The family: `model_type`. */
  modelType: "whisper";
  /** Rows of the decoder's embedding. */
  vocabSize: number;
  /** Mel bands of the features: 80 or 128. */
  numMelBins: number;
  /** Channels of the hidden states. */
  hiddenSize: number;
  /** Sizes of the encoder. */
  encoder: {
    /** Number of blocks. */
    layers: number;
    /** Number of attention heads, H. */
    heads: number;
    /** Hidden channels of each MLP. */
    intermediateSize: number;
  };
  /** Sizes of the decoder. */
  decoder: {
    /** Number of blocks. */
    layers: number;
    /** Number of attention heads, H. */
    heads: number;
    /** Hidden channels of each MLP. */
    intermediateSize: number;
  };
  /** Positions of the encoder's output: half of the features' frames. */
  maxSourcePositions: number;
  /** The longest text, in tokens, start tokens included. */
  maxPositionEmbeddings: number;
  /** The activation of each MLP. */
  activation: ActivationName;
  /** Dropout of the embeddings and before residual sums. */
  dropout: number;
  /** Dropout of the attention weights in training. */
  attentionDropout: number;
  /** Dropout inside each MLP. */
  activationDropout: number;
  /** The first token of every decoder input. */
  decoderStartTokenId: number;
  /** The padding id. */
  padTokenId: number;
  /** Whether the head shares the decoder embedding's weight. */
  tieWordEmbeddings: boolean;
  /** The weights' dtype as named in the file, such as `bfloat16`. */
  dtype: string | undefined;
  /** The standard deviation of randomly initialised weights. */
  initializerRange: number;
  /** The start tokens and suppressed tokens of transcriptions. */
  generation: WhisperGeneration;
}

/** `WhisperConfig` of transformers: the supported fields of `config.json`, with their defaults. */
export interface WhisperConfigFields
  extends Omit<CommonConfigFields, "initializer_range">, Omit<TextConfigFields, "initializer_range"> {
  /** 51,865. */
  vocab_size?: number | undefined;
  /** 80. */
  num_mel_bins?: number | undefined;
  /** 384. */
  d_model?: number | undefined;
  /** 4. */
  encoder_layers?: number | undefined;
  /** 6. */
  encoder_attention_heads?: number | undefined;
  /** 1536. */
  encoder_ffn_dim?: number | undefined;
  /** 4. */
  decoder_layers?: number | undefined;
  /** 6. */
  decoder_attention_heads?: number | undefined;
  /** 1536. */
  decoder_ffn_dim?: number | undefined;
  /** 1500. */
  max_source_positions?: number | undefined;
  /** 448. */
  max_target_positions?: number | undefined;
  /** gelu. */
  activation_function?: string | undefined;
  /** 0. */
  dropout?: number | undefined;
  /** 0. */
  activation_dropout?: number | undefined;
  /** Dropout of the attention weights; 0. */
  attention_dropout?: number | undefined;
  /** 50,257. */
  decoder_start_token_id?: number | undefined;
  /** The standard deviation of the initial weights; 0.02. */
  init_std?: number | undefined;
  /** True. */
  tie_word_embeddings?: boolean | undefined;
  /** Tokens that are never generated. */
  suppress_tokens?: readonly number[] | null | undefined;
  /** Tokens that are never generated first. */
  begin_suppress_tokens?: readonly number[] | null | undefined;
  /** The start tokens by position, in older files. */
  forced_decoder_ids?: readonly (readonly [position: number, id: number | null])[] | null | undefined;
}

/**
 * Reads a parsed `config.json` and, where there is one, `generation_config.json`.
 *
 * Throws `ERR_UNSUPPORTED_MODEL` for an unsupported feature; `ERR_FILE_FORMAT` for a missing
 * or invalid value.
 */
export function readWhisperConfig(
  json: Record<string, unknown> | ConfigFields,
  generation?: ConfigFields,
): WhisperConfig {
  const config = json instanceof ConfigFields ? json : new ConfigFields("config.json", json);
  refuseQuantised(config);
  const hiddenSize = config.readSize("d_model", LIMIT.width) ?? 384;
  const half = (name: "encoder" | "decoder"): WhisperConfig["encoder"] => {
    const heads = config.readSize(`${name}_attention_heads`, LIMIT.heads) ?? 6;
    if (hiddenSize % heads !== 0)
      throw config.createError(`${name}_attention_heads`, `must divide d_model (${hiddenSize})`);
    const layers = config.readSize(`${name}_layers`, LIMIT.layers) ?? 4;
    return {
      layers,
      heads,
      intermediateSize: config.readSize(`${name}_ffn_dim`, 4 * LIMIT.width) ?? 1536,
    };
  };
  if (hiddenSize % 2 !== 0 || hiddenSize < 4)
    throw config.createError("d_model", "must be an even number of at least 4");
  const ids = readSpecialIds(config, generation);
  const vocabSize = config.readSize("vocab_size", LIMIT.vocabulary) ?? 51_865;
  const readId = (key: string, otherwise: number): number => {
    const value = generation?.readToken(key) ?? config.readToken(key) ?? otherwise;
    if (value < vocabSize) return value;
    throw config.createFailure(`${key} is ${value}, and vocab_size ${vocabSize}`);
  };
  const end = ids.eosTokenIds.length > 0 || config.has("eos_token_id") ? ids.eosTokenIds : [50_256];
  const result: WhisperConfig = {
    modelType: "whisper",
    vocabSize,
    numMelBins: config.readSize("num_mel_bins", 1024) ?? 80,
    hiddenSize,
    encoder: half("encoder"),
    decoder: half("decoder"),
    maxSourcePositions: config.readSize("max_source_positions", LIMIT.positions) ?? 1500,
    maxPositionEmbeddings: config.readSize("max_target_positions", LIMIT.positions) ?? 448,
    activation: readActivation(config, "activation_function", "gelu"),
    dropout: readProbability(config, "dropout", 0),
    attentionDropout: readProbability(config, "attention_dropout", 0),
    activationDropout: readProbability(config, "activation_dropout", 0),
    decoderStartTokenId: readId("decoder_start_token_id", 50_257),
    tieWordEmbeddings: config.readBoolean("tie_word_embeddings") ?? true,
    bosTokenId: ids.bosTokenId,
    eosTokenIds: end,
    padTokenId: readId("pad_token_id", 50_256),
    ...readWeightsConfig(config, "init_std"),
    generation: readWhisperGeneration(config, generation, vocabSize),
  };
  const { encoder, decoder } = result;
  const values =
    (vocabSize + result.maxPositionEmbeddings + result.maxSourcePositions) * hiddenSize +
    3 * hiddenSize * (result.numMelBins + hiddenSize) +
    encoder.layers * (4 * hiddenSize ** 2 + 2 * hiddenSize * encoder.intermediateSize) +
    decoder.layers * (8 * hiddenSize ** 2 + 2 * hiddenSize * decoder.intermediateSize);
  checkCount(config, values);
  return result;
}

/** Returns the configuration as a `config.json` for transformers 4.40 or later, and for `readWhisperConfig`. */
export function writeWhisperConfig(config: WhisperConfig): Record<string, unknown> {
  const { encoder, decoder, generation } = config;
  return {
    architectures: ["WhisperForConditionalGeneration"],
    model_type: "whisper",
    is_encoder_decoder: true,
    vocab_size: config.vocabSize,
    num_mel_bins: config.numMelBins,
    d_model: config.hiddenSize,
    encoder_layers: encoder.layers,
    encoder_attention_heads: encoder.heads,
    encoder_ffn_dim: encoder.intermediateSize,
    decoder_layers: decoder.layers,
    decoder_attention_heads: decoder.heads,
    decoder_ffn_dim: decoder.intermediateSize,
    max_source_positions: config.maxSourcePositions,
    max_target_positions: config.maxPositionEmbeddings,
    activation_function: config.activation,
    dropout: config.dropout,
    attention_dropout: config.attentionDropout,
    activation_dropout: config.activationDropout,
    decoder_start_token_id: config.decoderStartTokenId,
    tie_word_embeddings: config.tieWordEmbeddings,
    suppress_tokens: generation.suppressTokens.length > 0 ? [...generation.suppressTokens] : null,
    begin_suppress_tokens:
      generation.beginSuppressTokens.length > 0 ? [...generation.beginSuppressTokens] : null,
    ...(generation.forcedIds.length > 0 && {
      forced_decoder_ids: generation.forcedIds.map((id, i) => [i + 1, id ?? null]),
    }),
    ...writeSpecialIds(config),
    ...writeWeightsConfig(config, "init_std"),
  };
}
