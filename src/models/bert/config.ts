/** The configuration of BERT and RoBERTa. */
import { readActivation, type ActivationName } from "../activation.js";
import { LowrankError } from "../../errors.js";
import { ConfigFields } from "../config-fields.js";
import type { LabelConfigFields, TextConfigFields } from "../from-config.js";
import {
  countBlockValues,
  checkCount,
  writeBlocks,
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
import { writeLabels, readLabelConfig, type LabelConfig } from "../labels.js";

export type BertModelType = "bert" | "roberta";

/** The fields of `config.json`, in camel case. */
export interface BertConfig extends BlocksConfig, SpecialIds, LabelConfig {
  /** The family: `model_type`. */
  modelType: "bert" | "roberta";
  /** Rows of the input embedding. */
  vocabSize: number;
  /** The longest text, in tokens. */
  maxPositionEmbeddings: number;
  /**
   * Rows of the position embedding; for RoBERTa larger than the longest text by the padding row and those before it.
   */
  positionRows: number;
  /** Number of token types. */
  typeVocabSize: number;
  /** The epsilon of LayerNorm. */
  layerNormEps: number;
  /** The activation of each MLP. */
  activation: ActivationName;
  /** Dropout of the embeddings and before residual sums. */
  hiddenDropout: number;
  /** Dropout before the classifier. */
  classifierDropout: number;
}

/** `BertConfig` and `RobertaConfig` of transformers: the supported fields of `config.json`, with their defaults. */
export interface BertConfigFields extends TextConfigFields, LabelConfigFields {
  /** 30,522; 50,265 for RoBERTa. */
  vocab_size?: number | undefined;
  /** 768. */
  hidden_size?: number | undefined;
  /** 3072. */
  intermediate_size?: number | undefined;
  /** 12. */
  num_hidden_layers?: number | undefined;
  /** 12. */
  num_attention_heads?: number | undefined;
  /** Rows of the position embedding, 512; for RoBERTa two more than its longest text. */
  max_position_embeddings?: number | undefined;
  /** 2. */
  type_vocab_size?: number | undefined;
  /** 1e-12. */
  layer_norm_eps?: number | undefined;
  /** gelu. */
  hidden_act?: string | undefined;
  /** 0.1. */
  hidden_dropout_prob?: number | undefined;
  /** As `hidden_dropout_prob`. */
  classifier_dropout?: number | null | undefined;
  /** Dropout of the attention weights; 0.1. */
  attention_probs_dropout_prob?: number | undefined;
  /** absolute. */
  position_embedding_type?: string | undefined;
}

/** transformers' defaults. */
const DEFAULTS = {
  bert: { vocabulary: 30_522, pad: 0 },
  roberta: { vocabulary: 50_265, pad: 1 },
};

/**
 * Reads a parsed `config.json`; `numLabels` overrides the number of classes in it.
 *
 * Throws `ERR_UNSUPPORTED_MODEL` for an unsupported feature; `ERR_FILE_FORMAT` for a missing
 * or invalid value.
 */
export function readBertConfig(json: Record<string, unknown> | ConfigFields, numLabels?: number): BertConfig {
  const config = json instanceof ConfigFields ? json : new ConfigFields("config.json", json);
  const modelType: BertModelType = config.readString("model_type") === "roberta" ? "roberta" : "bert";
  refuseQuantised(config);
  refuseTrue(config, "is_decoder", "add_cross_attention");
  const positions = config.readString("position_embedding_type") ?? "absolute";
  if (positions !== "absolute") {
    const message = `position_embedding_type "${positions}" is not supported; supported is absolute`;
    throw new LowrankError("ERR_UNSUPPORTED_MODEL", `${config.file}: ${message}`);
  }
  const hiddenSize = config.readSize("hidden_size", LIMIT.width) ?? 768;
  const heads = config.readSize("num_attention_heads", LIMIT.heads) ?? 12;
  if (hiddenSize % heads !== 0)
    throw config.createError("num_attention_heads", `must divide hidden_size (${hiddenSize})`);
  const ids = readSpecialIds(config, undefined);
  const pad = ids.padTokenId ?? DEFAULTS[modelType].pad;
  const positionRows = config.readSize("max_position_embeddings", LIMIT.positions) ?? 512;
  const longest = modelType === "roberta" ? positionRows - pad - 1 : positionRows;
  if (longest < 1) throw config.createError("max_position_embeddings", `must be more than ${pad + 1}`);
  const hiddenDropout = readProbability(config, "hidden_dropout_prob", 0.1);
  const result: BertConfig = {
    modelType,
    vocabSize: config.readSize("vocab_size", LIMIT.vocabulary) ?? DEFAULTS[modelType].vocabulary,
    hiddenSize,
    intermediateSize: config.readSize("intermediate_size", 4 * LIMIT.width) ?? 3072,
    numHiddenLayers: config.readSize("num_hidden_layers", LIMIT.layers) ?? 12,
    numAttentionHeads: heads,
    maxPositionEmbeddings: longest,
    positionRows,
    typeVocabSize: config.readSize("type_vocab_size", LIMIT.vocabulary) ?? 2,
    layerNormEps: config.readPositive("layer_norm_eps") ?? 1e-12,
    activation: readActivation(config, "hidden_act", "gelu"),
    attentionDropout: readProbability(config, "attention_probs_dropout_prob", 0.1),
    hiddenDropout,
    classifierDropout: readProbability(config, "classifier_dropout", hiddenDropout),
    ...ids,
    padTokenId: pad,
    ...readLabelConfig(config, numLabels),
    ...readWeightsConfig(config),
  };
  const rows = result.vocabSize + positionRows + result.typeVocabSize;
  checkCount(config, rows * hiddenSize + countBlockValues(result));
  return result;
}

/** Returns the configuration as a `config.json` for transformers 4.40 or later, and for `readBertConfig`. */
export function writeBertConfig(config: BertConfig): Record<string, unknown> {
  return {
    model_type: config.modelType,
    vocab_size: config.vocabSize,
    ...writeBlocks(config),
    hidden_act: config.activation,
    hidden_dropout_prob: config.hiddenDropout,
    attention_probs_dropout_prob: config.attentionDropout,
    classifier_dropout: config.classifierDropout,
    max_position_embeddings: config.positionRows,
    type_vocab_size: config.typeVocabSize,
    layer_norm_eps: config.layerNormEps,
    ...writeLabels(config),
    ...writeSpecialIds(config),
    ...writeWeightsConfig(config),
  };
}
