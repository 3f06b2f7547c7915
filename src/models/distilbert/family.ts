import type { Family } from "../family.js";
import { readDistilBertConfig, type DistilBertConfig } from "./config.js";
import { DistilBertForSequenceClassification, DistilBertModel } from "./model.js";

export const distilbert: Family<DistilBertConfig> = {
  modelTypes: ["distilbert"],
  read: ({ config, numLabels }) => readDistilBertConfig(config, numLabels),
  naming: () => ({
    // A buffer of older transformers, and the heads of other tasks.
    extras: /(^|\.)embeddings\.position_ids$|^vocab_|^(pre_)?classifier\.|^qa_outputs\./,
    prefix: "distilbert.",
    fresh: /^(pre_)?classifier\./,
  }),
  tasks: {
    "feature-extraction": (config, weights) => new DistilBertModel(config, weights),
    "sequence-classification": (config, weights) => new DistilBertForSequenceClassification(config, weights),
  },
};
