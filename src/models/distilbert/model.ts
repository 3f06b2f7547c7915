/** DistilBERT as an encoder, and for sequence classification. Parameter paths match transformers. */
import { Dropout } from "../../nn/dropout.js";
import type { Linear } from "../../nn/linear.js";
import type { Tensor } from "../../tensor/tensor.js";
import { takeFirstToken, SequenceClassifier } from "../classifier.js";
import { EncoderBlocks, TextEncoder } from "../encoder.js";
import { buildFromConfig, type FromConfigOptions } from "../from-config.js";
import type { Weights } from "../weights.js";
import { DistilBertBlock } from "./block.js";
import {
  readDistilBertConfig,
  writeDistilBertConfig,
  type DistilBertConfig,
  type DistilBertConfigFields,
} from "./config.js";
import { DistilBertEmbeddings } from "./embeddings.js";

/** The blocks of DistilBERT. */
export class DistilBertTransformer extends EncoderBlocks<DistilBertBlock> {
  /** @internal */
  constructor(config: DistilBertConfig, path: string, weights: Weights) {
    super(config, (i) => new DistilBertBlock(config, `${path}.layer.${i}`, weights));
  }
}

/**
 * DistilBERT's encoder, standalone or as part of a classifier. Submodules and `stateDict` keys have transformers'
 * names.
 */
export class DistilBertModel extends TextEncoder {
  /** The fields of `config.json`, in camel case. */
  readonly config: DistilBertConfig & Record<string, unknown>;
  /** The embeddings of words and positions. */
  embeddings: DistilBertEmbeddings;
  /** The blocks. */
  transformer: DistilBertTransformer;

  /** @internal `prefix` is prepended to its parameter paths. */
  constructor(config: DistilBertConfig, weights: Weights, prefix = "") {
    super(weights);
    this.config = config as DistilBertConfig & Record<string, unknown>;
    this.embeddings = new DistilBertEmbeddings(config, `${prefix}embeddings`, weights);
    this.transformer = new DistilBertTransformer(config, `${prefix}transformer`, weights);
  }

  /**
   * Creates a model from transformers' configuration fields, initialised as in transformers: N(0,
   * `initializer_range`²), padding row and biases 0, norms 1, positions as sines and cosines where the configuration
   * says so. Reproducible with `manualSeed`. The model is in training mode, and all weights require gradients unless
   * they are f16 or bf16.
   *
   * Throws `ERR_OPTION` for an invalid or unknown field, `ERR_UNSUPPORTED_MODEL` for an unsupported feature,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: DistilBertConfigFields, options?: FromConfigOptions): DistilBertModel {
    return buildFromConfig("DistilBertModel.fromConfig", config, options, {
      modelTypes: ["distilbert"],
      read: readDistilBertConfig,
      make: (settled, weights) => new DistilBertModel(settled, weights),
    });
  }

  /** @internal */
  protected override get blocks() {
    return this.transformer;
  }

  /** @internal Returns the configuration as fields of `config.json`. */
  toHubConfig(): Record<string, unknown> {
    return { ...writeDistilBertConfig(this.config), ...this.listConfigChanges() };
  }

  /** @internal Configuration fields that have changed since loading. */
  override listConfigChanges(): Record<string, unknown> {
    return { architectures: ["DistilBertModel"] };
  }
}

/** DistilBERT with a classifier over its first token. Submodules and `stateDict` keys have transformers' names. */
export class DistilBertForSequenceClassification extends SequenceClassifier {
  /** The fields of `config.json`, in camel case. */
  readonly config: DistilBertConfig & Record<string, unknown>;
  /** The class name in transformers. */
  readonly architecture = "DistilBertForSequenceClassification";
  /** The encoder. */
  distilbert: DistilBertModel;
  /** The linear layer before the classifier. */
  pre_classifier: Linear;
  /** The classifier, [C] → [N]. */
  classifier: Linear;
  /** Dropout before the classifier. */
  dropout: Dropout;

  /** @internal */
  constructor(config: DistilBertConfig, weights: Weights) {
    super(weights);
    const { hiddenSize: C } = config;
    this.config = config as DistilBertConfig & Record<string, unknown>;
    this.distilbert = new DistilBertModel(config, weights, "distilbert.");
    this.pre_classifier = weights.linear("pre_classifier", C, C, true);
    this.classifier = weights.linear("classifier", C, config.labels.length, true);
    this.dropout = new Dropout(config.classifierDropout);
  }

  /**
   * Creates a model from transformers' configuration fields, initialised as in transformers: N(0,
   * `initializer_range`²), padding row and biases 0, norms 1, positions as sines and cosines where the configuration
   * says so. Reproducible with `manualSeed`. The model is in training mode, and all weights require gradients unless
   * they are f16 or bf16.
   *
   * Throws `ERR_OPTION` for an invalid or unknown field, `ERR_UNSUPPORTED_MODEL` for an unsupported feature,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(
    config: DistilBertConfigFields,
    options?: FromConfigOptions,
  ): DistilBertForSequenceClassification {
    return buildFromConfig("DistilBertForSequenceClassification.fromConfig", config, options, {
      modelTypes: ["distilbert"],
      read: readDistilBertConfig,
      make: (settled, weights) => new DistilBertForSequenceClassification(settled, weights),
    });
  }

  /** The encoder: `distilbert`. */
  get encoder(): DistilBertModel {
    return this.distilbert;
  }

  /** @internal Maps hidden [B, T, C] to logits [B, N]. */
  computeLogits(hidden: Tensor): Tensor {
    const pooled = this.pre_classifier.forward(takeFirstToken(hidden)).relu();
    return this.classifier.forward(this.dropout.forward(pooled));
  }

  /** @internal Returns the configuration as fields of `config.json`. */
  toHubConfig(): Record<string, unknown> {
    return { ...writeDistilBertConfig(this.config), ...this.listConfigChanges() };
  }
}
