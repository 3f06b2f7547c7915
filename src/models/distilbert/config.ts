/** The configuration of DistilBERT, with its own field names (`dim`) or the common ones (`hidden_size`). */
import { readActivation, type ActivationName } from "../activation.js";
import { ConfigFields } from "../config-fields.js";
import {
  countBlockValues,
  checkCount,
  writeSpecialIds,
  writeWeightsConfig,
  LIMIT,
  readProbability,
  refuseQuantised,
  readSpecialIds,
  readWeightsConfig,
  type BlocksConfig,
  type SpecialIds,
} from "../config-parts.js";
import type { LabelConfigFields, TextConfigFields } from "../from-config.js";
import { writeLabels, readLabelConfig, type LabelConfig } from "../labels.js";

/** The fields of `config.json`, in camel case. */
export interface DistilBertConfig extends BlocksConfig, SpecialIds, LabelConfig {
  /** The family: `model_type`. */
  modelType: "distilbert";
  /** Rows of the input embedding. */
  vocabSize: number;
  /** The longest text, in tokens. */
  maxPositionEmbeddings: number;
  /** Whether positions are initialised with sines and cosines. */
  sinusoidalPositions: boolean;
  /** The activation of each MLP. */
  activation: ActivationName;
  /** Dropout of the embeddings and after each MLP. */
  dropout: number;
  /** Dropout before the classifier. */
  classifierDropout: number;
}

/** `DistilBertConfig` of transformers: the supported fields of `config.json`, with their defaults. */
export interface DistilBertConfigFields extends TextConfigFields, LabelConfigFields {
  /** 30,522. */
  vocab_size?: number | undefined;
  /** 768. */
  dim?: number | undefined;
  /** 3072. */
  hidden_dim?: number | undefined;
  /** 6. */
  n_layers?: number | undefined;
  /** 12. */
  n_heads?: number | undefined;
  /** 512. */
  max_position_embeddings?: number | undefined;
  /** Whether positions are initialised with sines and cosines; false. */
  sinusoidal_pos_embds?: boolean | undefined;
  /** gelu. */
  activation?: string | undefined;
  /** 0.1. */
  dropout?: number | undefined;
  /** Dropout before the classifier; 0.2. */
  seq_classif_dropout?: number | undefined;
  /** Dropout of the attention weights; 0.1. */
  attention_dropout?: number | undefined;
}

/**
 * Reads a parsed `config.json`; `numLabels` overrides the number of classes in it.
 *
 * Throws `ERR_UNSUPPORTED_MODEL` for an unsupported feature; `ERR_FILE_FORMAT` for a missing
 * or invalid value.
 */
export function readDistilBertConfig(
  json: Record<string, unknown> | ConfigFields,
  numLabels?: number,
): DistilBertConfig {
  const config = json instanceof ConfigFields ? json : new ConfigFields("config.json", json);
  refuseQuantised(config);
  const hiddenSize =
    config.readSize("dim", LIMIT.width) ?? config.readSize("hidden_size", LIMIT.width) ?? 768;
  const heads =
    config.readSize("n_heads", LIMIT.heads) ?? config.readSize("num_attention_heads", LIMIT.heads) ?? 12;
  if (hiddenSize % heads !== 0)
    throw config.createFailure(`${heads} heads (n_heads) do not divide ${hiddenSize} (dim)`);
  const ids = readSpecialIds(config, undefined);
  const result: DistilBertConfig = {
    modelType: "distilbert",
    vocabSize: config.readSize("vocab_size", LIMIT.vocabulary) ?? 30_522,
    hiddenSize,
    intermediateSize: config.readSize("hidden_dim", 4 * LIMIT.width) ?? 3072,
    numHiddenLayers:
      config.readSize("n_layers", LIMIT.layers) ?? config.readSize("num_hidden_layers", LIMIT.layers) ?? 6,
    numAttentionHeads: heads,
    maxPositionEmbeddings: config.readSize("max_position_embeddings", LIMIT.positions) ?? 512,
    sinusoidalPositions: config.readBoolean("sinusoidal_pos_embds") ?? false,
    activation: readActivation(config, "activation", "gelu"),
    dropout: readProbability(config, "dropout", 0.1),
    attentionDropout: readProbability(config, "attention_dropout", 0.1),
    classifierDropout: readProbability(config, "seq_classif_dropout", 0.2),
    ...ids,
    padTokenId: ids.padTokenId ?? 0,
    ...readLabelConfig(config, numLabels),
    ...readWeightsConfig(config),
  };
  const rows = result.vocabSize + result.maxPositionEmbeddings;
  checkCount(config, rows * hiddenSize + countBlockValues(result));
  return result;
}

/** Returns the configuration as a `config.json` for transformers 4.40 or later, and for `readDistilBertConfig`. */
export function writeDistilBertConfig(config: DistilBertConfig): Record<string, unknown> {
  return {
    model_type: "distilbert",
    vocab_size: config.vocabSize,
    dim: config.hiddenSize,
    hidden_dim: config.intermediateSize,
    n_layers: config.numHiddenLayers,
    n_heads: config.numAttentionHeads,
    max_position_embeddings: config.maxPositionEmbeddings,
    sinusoidal_pos_embds: config.sinusoidalPositions,
    activation: config.activation,
    dropout: config.dropout,
    attention_dropout: config.attentionDropout,
    seq_classif_dropout: config.classifierDropout,
    ...writeLabels(config),
    ...writeSpecialIds(config),
    ...writeWeightsConfig(config),
  };
}
