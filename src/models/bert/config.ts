/** The configuration of BERT and RoBERTa. */
import { activationField, type ActivationName } from "../activation.js";
import { LowrankError } from "../../errors.js";
import { ConfigFields } from "../config-fields.js";
import type { LabelConfigFields, TextConfigFields } from "../from-config.js";
import {
  blockValues,
  checkCount,
  hubBlocks,
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
import { hubLabels, labelConfig, type LabelConfig } from "../labels.js";

export type BertModelType = "bert" | "roberta";

/** What `config.json` says, in one spelling. */
export interface BertConfig extends BlocksConfig, SpecialIds, LabelConfig {
  /** The family, as `model_type` names it. */
  modelType: "bert" | "roberta";
  /** Rows of the input embedding. */
  vocabSize: number;
  /** The longest text. */
  maxPositionEmbeddings: number;
  /** Rows of the position embedding: RoBERTa's longest text, and the padding's row and those before. */
  positionRows: number;
  /** Kinds of texts that `tokenTypeIds` tells apart. */
  typeVocabSize: number;
  /** Added to the variance in norms. */
  layerNormEps: number;
  /** What each MLP applies. */
  activation: ActivationName;
  /** Dropout of the embeddings, and of what a block adds. */
  hiddenDropout: number;
  /** Dropout before the classifier. */
  classifierDropout: number;
}

/**
 * `BertConfig` and `RobertaConfig` of transformers: the fields of `config.json` that are read, and what they are unless
 * given.
 */
export interface BertConfigFields extends TextConfigFields, LabelConfigFields {
  /** 30,522; 50,265 of RoBERTa. */
  vocab_size?: number | undefined;
  /** 768. */
  hidden_size?: number | undefined;
  /** 3072. */
  intermediate_size?: number | undefined;
  /** 12. */
  num_hidden_layers?: number | undefined;
  /** 12. */
  num_attention_heads?: number | undefined;
  /** Rows of the position embedding, 512: of RoBERTa two more than its longest text. */
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
  /** Dropout of the attention's weights; 0.1. */
  attention_probs_dropout_prob?: number | undefined;
  /** absolute. */
  position_embedding_type?: string | undefined;
}

/** What transformers takes where the file is silent. */
const DEFAULTS = {
  bert: { vocabulary: 30_522, pad: 0 },
  roberta: { vocabulary: 50_265, pad: 1 },
};

/**
 * Reads a parsed `config.json`; `numLabels` goes before the classes that it names.
 *
 * Errors: `ERR_UNSUPPORTED_MODEL` for a feature that is not built; `ERR_FILE_FORMAT` for a missing
 * or senseless value.
 */
export function bertConfig(json: Record<string, unknown> | ConfigFields, numLabels?: number): BertConfig {
  const config = json instanceof ConfigFields ? json : new ConfigFields("config.json", json);
  const modelType: BertModelType = config.string("model_type") === "roberta" ? "roberta" : "bert";
  refuseQuantised(config);
  refuseTrue(config, "is_decoder", "add_cross_attention");
  const positions = config.string("position_embedding_type") ?? "absolute";
  if (positions !== "absolute") {
    const message = `position_embedding_type "${positions}" is not supported; supported is absolute`;
    throw new LowrankError("ERR_UNSUPPORTED_MODEL", `${config.file}: ${message}`);
  }
  const hiddenSize = config.size("hidden_size", LIMIT.width) ?? 768;
  const heads = config.size("num_attention_heads", LIMIT.heads) ?? 12;
  if (hiddenSize % heads !== 0)
    throw config.error("num_attention_heads", `must divide hidden_size (${hiddenSize})`);
  const ids = specialIds(config, undefined);
  const pad = ids.padTokenId ?? DEFAULTS[modelType].pad;
  const positionRows = config.size("max_position_embeddings", LIMIT.positions) ?? 512;
  const longest = modelType === "roberta" ? positionRows - pad - 1 : positionRows;
  if (longest < 1) throw config.error("max_position_embeddings", `must be more than ${pad + 1}`);
  const hiddenDropout = probability(config, "hidden_dropout_prob", 0.1);
  const result: BertConfig = {
    modelType,
    vocabSize: config.size("vocab_size", LIMIT.vocabulary) ?? DEFAULTS[modelType].vocabulary,
    hiddenSize,
    intermediateSize: config.size("intermediate_size", 4 * LIMIT.width) ?? 3072,
    numHiddenLayers: config.size("num_hidden_layers", LIMIT.layers) ?? 12,
    numAttentionHeads: heads,
    maxPositionEmbeddings: longest,
    positionRows,
    typeVocabSize: config.size("type_vocab_size", LIMIT.vocabulary) ?? 2,
    layerNormEps: config.positive("layer_norm_eps") ?? 1e-12,
    activation: activationField(config, "hidden_act", "gelu"),
    attentionDropout: probability(config, "attention_probs_dropout_prob", 0.1),
    hiddenDropout,
    classifierDropout: probability(config, "classifier_dropout", hiddenDropout),
    ...ids,
    padTokenId: pad,
    ...labelConfig(config, numLabels),
    ...weightsConfig(config),
  };
  const rows = result.vocabSize + positionRows + result.typeVocabSize;
  checkCount(config, rows * hiddenSize + blockValues(result));
  return result;
}

/** The configuration as a `config.json` that every transformers from 4.40 on reads, and `bertConfig` too. */
export function hubConfig(config: BertConfig): Record<string, unknown> {
  return {
    model_type: config.modelType,
    vocab_size: config.vocabSize,
    ...hubBlocks(config),
    hidden_act: config.activation,
    hidden_dropout_prob: config.hiddenDropout,
    attention_probs_dropout_prob: config.attentionDropout,
    classifier_dropout: config.classifierDropout,
    max_position_embeddings: config.positionRows,
    type_vocab_size: config.typeVocabSize,
    layer_norm_eps: config.layerNormEps,
    ...hubLabels(config),
    ...hubSpecialIds(config),
    ...hubWeights(config),
  };
}
