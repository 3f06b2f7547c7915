/** BERT and RoBERTa as encoders, and for sequence classification. Parameter paths match transformers. */
import { Dropout } from "../../nn/dropout.js";
import type { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import type { Tensor } from "../../tensor/tensor.js";
import { takeFirstToken, SequenceClassifier } from "../classifier.js";
import { EncoderBlocks, TextEncoder } from "../encoder.js";
import { buildFromConfig, type FromConfigOptions } from "../from-config.js";
import type { Weights } from "../weights.js";
import { BertLayer } from "./block.js";
import { readBertConfig, writeBertConfig, type BertConfig, type BertConfigFields } from "./config.js";
import { BertEmbeddings } from "./embeddings.js";

/** The blocks of BERT. */
export class BertEncoder extends EncoderBlocks<BertLayer> {
  /** @internal */
  constructor(config: BertConfig, path: string, weights: Weights) {
    super(config, (i) => new BertLayer(config, `${path}.layer.${i}`, weights));
  }
}

/** tanh(dense(the first token)). */
export class BertPooler extends Module {
  /** The linear layer before tanh. */
  dense: Linear;

  /** @internal */
  constructor({ hiddenSize: C }: BertConfig, path: string, weights: Weights) {
    super();
    this.dense = weights.linear(`${path}.dense`, C, C, true);
  }

  /** Maps hidden [B, T, C] to [B, C]. */
  forward(hidden: Tensor): Tensor {
    return this.dense.forward(takeFirstToken(hidden)).tanh();
  }
}

/** Optional parts of a model. */
interface Parts {
  /** The prefix of its parameter paths; "" for a standalone model. */
  path?: string | undefined;
  /** Whether it has a pooler; by default as in the file. */
  pooler?: boolean | undefined;
}

/** BERT's encoder, standalone or as part of a classifier. Submodules and `stateDict` keys have transformers' names. */
export class BertModel extends TextEncoder {
  /** The fields of `config.json`, in camel case. */
  readonly config: BertConfig & Record<string, unknown>;
  /** The embeddings of words, positions and types. */
  embeddings: BertEmbeddings;
  /** The blocks. */
  encoder: BertEncoder;
  /** The pooler of the first token; null where the model has none. */
  pooler: BertPooler | null;

  /** @internal */
  constructor(config: BertConfig, weights: Weights, parts: Parts = {}) {
    super(weights);
    const { path = "", pooler } = parts;
    this.config = config as BertConfig & Record<string, unknown>;
    const below = (name: string): string => (path === "" ? name : `${path}.${name}`);
    this.embeddings = new BertEmbeddings(config, below("embeddings"), weights);
    this.encoder = new BertEncoder(config, below("encoder"), weights);
    this.pooler =
      (pooler ?? weights.has(below("pooler.dense.weight")))
        ? new BertPooler(config, below("pooler"), weights)
        : null;
  }

  /**
   * Creates a model from transformers' configuration fields, initialised as in transformers: N(0,
   * `initializer_range`²), padding rows and biases 0, norms 1. Reproducible with `manualSeed`. The model is in training
   * mode, and all weights require gradients unless they are f16 or bf16.
   *
   * Throws `ERR_OPTION` for an invalid or unknown field, `ERR_UNSUPPORTED_MODEL` for an unsupported feature,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: BertConfigFields, options?: FromConfigOptions): BertModel {
    return buildFromConfig("BertModel.fromConfig", config, options, {
      modelTypes: ["bert"],
      read: readBertConfig,
      make: (settled, weights) => new BertModel(settled, weights),
    });
  }

  /** @internal */
  protected override get blocks() {
    return this.encoder;
  }

  /** @internal Returns the configuration as fields of `config.json`. */
  toHubConfig(): Record<string, unknown> {
    return { ...writeBertConfig(this.config), ...this.listConfigChanges() };
  }

  /** @internal Configuration fields that have changed since loading. */
  override listConfigChanges(): Record<string, unknown> {
    return { architectures: [this.config.modelType === "roberta" ? "RobertaModel" : "BertModel"] };
  }
}

/** RoBERTa, which differs from BERT only in its positions. */
export class RobertaModel extends BertModel {
  /**
   * Creates a model from transformers' configuration fields, initialised as in transformers: N(0,
   * `initializer_range`²), padding rows and biases 0, norms 1. Reproducible with `manualSeed`. The model is in training
   * mode, and all weights require gradients unless they are f16 or bf16.
   *
   * Throws `ERR_OPTION` for an invalid or unknown field, `ERR_UNSUPPORTED_MODEL` for an unsupported feature,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static override fromConfig(config: BertConfigFields, options?: FromConfigOptions): RobertaModel {
    return buildFromConfig("RobertaModel.fromConfig", config, options, {
      modelTypes: ["roberta"],
      read: readBertConfig,
      make: (settled, weights) => new RobertaModel(settled, weights),
    });
  }
}

/** BERT with a classifier over its pooler. Submodules and `stateDict` keys have transformers' names. */
export class BertForSequenceClassification extends SequenceClassifier {
  /** The fields of `config.json`, in camel case. */
  readonly config: BertConfig & Record<string, unknown>;
  /** The class name in transformers. */
  readonly architecture = "BertForSequenceClassification";
  /** The encoder, with its pooler. */
  bert: BertModel;
  /** Dropout before the classifier. */
  dropout: Dropout;
  /** The classifier, [C] → [N]. */
  classifier: Linear;

  /** @internal */
  constructor(config: BertConfig, weights: Weights) {
    super(weights);
    this.config = config as BertConfig & Record<string, unknown>;
    this.bert = new BertModel(config, weights, { path: "bert", pooler: true });
    this.dropout = new Dropout(config.classifierDropout);
    this.classifier = weights.linear("classifier", config.hiddenSize, config.labels.length, true);
  }

  /**
   * Creates a model from transformers' configuration fields, initialised as in transformers: N(0,
   * `initializer_range`²), padding rows and biases 0, norms 1. Reproducible with `manualSeed`. The model is in training
   * mode, and all weights require gradients unless they are f16 or bf16.
   *
   * Throws `ERR_OPTION` for an invalid or unknown field, `ERR_UNSUPPORTED_MODEL` for an unsupported feature,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: BertConfigFields, options?: FromConfigOptions): BertForSequenceClassification {
    return buildFromConfig("BertForSequenceClassification.fromConfig", config, options, {
      modelTypes: ["bert"],
      read: readBertConfig,
      make: (settled, weights) => new BertForSequenceClassification(settled, weights),
    });
  }

  /** The encoder: `bert`. */
  get encoder(): BertModel {
    return this.bert;
  }

  /** @internal Maps hidden [B, T, C] to logits [B, N]. */
  computeLogits(hidden: Tensor): Tensor {
    const pooled = (this.bert.pooler as BertPooler).forward(hidden);
    return this.classifier.forward(this.dropout.forward(pooled));
  }

  /** @internal Returns the configuration as fields of `config.json`. */
  toHubConfig(): Record<string, unknown> {
    return { ...writeBertConfig(this.config), ...this.listConfigChanges() };
  }
}

/** RoBERTa's classification head: out_proj(tanh(dense(the first token))). */
export class RobertaClassificationHead extends Module {
  /** The linear layer before tanh. */
  dense: Linear;
  /** Dropout before each linear layer. */
  dropout: Dropout;
  /** The output layer, [C] → [N]. */
  out_proj: Linear;

  /** @internal */
  constructor({ hiddenSize: C, labels, classifierDropout }: BertConfig, path: string, weights: Weights) {
    super();
    this.dense = weights.linear(`${path}.dense`, C, C, true);
    this.dropout = new Dropout(classifierDropout);
    this.out_proj = weights.linear(`${path}.out_proj`, C, labels.length, true);
  }

  /** Maps hidden [B, T, C] to [B, N]. */
  forward(hidden: Tensor): Tensor {
    const x = this.dense.forward(this.dropout.forward(takeFirstToken(hidden))).tanh();
    return this.out_proj.forward(this.dropout.forward(x));
  }
}

/** RoBERTa with a classifier over its first token. Submodules and `stateDict` keys have transformers' names. */
export class RobertaForSequenceClassification extends SequenceClassifier {
  /** The fields of `config.json`, in camel case. */
  readonly config: BertConfig & Record<string, unknown>;
  /** The class name in transformers. */
  readonly architecture = "RobertaForSequenceClassification";
  /** The encoder, without a pooler. */
  roberta: BertModel;
  /** The head over the first token. */
  classifier: RobertaClassificationHead;

  /** @internal */
  constructor(config: BertConfig, weights: Weights) {
    super(weights);
    this.config = config as BertConfig & Record<string, unknown>;
    this.roberta = new BertModel(config, weights, { path: "roberta", pooler: false });
    this.classifier = new RobertaClassificationHead(config, "classifier", weights);
  }

  /**
   * Creates a model from transformers' configuration fields, initialised as in transformers: N(0,
   * `initializer_range`²), padding rows and biases 0, norms 1. Reproducible with `manualSeed`. The model is in training
   * mode, and all weights require gradients unless they are f16 or bf16.
   *
   * Throws `ERR_OPTION` for an invalid or unknown field, `ERR_UNSUPPORTED_MODEL` for an unsupported feature,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: BertConfigFields, options?: FromConfigOptions): RobertaForSequenceClassification {
    return buildFromConfig("RobertaForSequenceClassification.fromConfig", config, options, {
      modelTypes: ["roberta"],
      read: readBertConfig,
      make: (settled, weights) => new RobertaForSequenceClassification(settled, weights),
    });
  }

  /** The encoder: `roberta`. */
  get encoder(): BertModel {
    return this.roberta;
  }

  /** @internal Maps hidden [B, T, C] to logits [B, N]. */
  computeLogits(hidden: Tensor): Tensor {
    return this.classifier.forward(hidden);
  }

  /** @internal Returns the configuration as fields of `config.json`. */
  toHubConfig(): Record<string, unknown> {
    return { ...writeBertConfig(this.config), ...this.listConfigChanges() };
  }
}
