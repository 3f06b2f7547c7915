import type { Family } from "../family.js";
import { readBertConfig, type BertConfig } from "./config.js";
import {
  BertForSequenceClassification,
  BertModel,
  RobertaForSequenceClassification,
  RobertaModel,
} from "./model.js";

export const bert: Family<BertConfig> = {
  modelTypes: ["bert", "roberta"],
  read: ({ config, numLabels }) => readBertConfig(config, numLabels),
  naming: ({ modelType }) => ({
    // Buffers of older transformers, and the heads of other tasks.
    extras:
      /(^|\.)embeddings\.(position|token_type)_ids$|^cls\.|^lm_head\.|^classifier\.|^qa_outputs\.|(^|\.)pooler\./,
    prefix: `${modelType}.`,
    fresh: /^classifier\.|(^|\.)pooler\./,
    older: (name) => {
      const older = name
        .replace(/LayerNorm\.weight$/, "LayerNorm.gamma")
        .replace(/LayerNorm\.bias$/, "LayerNorm.beta");
      return older === name ? [] : [older];
    },
  }),
  tasks: {
    "feature-extraction": (config, weights) =>
      config.modelType === "roberta" ? new RobertaModel(config, weights) : new BertModel(config, weights),
    "sequence-classification": (config, weights) =>
      config.modelType === "roberta"
        ? new RobertaForSequenceClassification(config, weights)
        : new BertForSequenceClassification(config, weights),
  },
};
