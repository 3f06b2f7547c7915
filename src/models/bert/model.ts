/** BERT and RoBERTa as encoders, and for sequence classification. Paths are transformers'. */
import { Dropout } from "../../nn/dropout.js";
import type { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import type { Tensor } from "../../tensor.js";
import { firstToken, SequenceClassifier } from "../classifier.js";
import { EncoderBlocks, TextEncoder } from "../encoder.js";
import { fromConfig, type FromConfigOptions } from "../from-config.js";
import type { Weights } from "../weights.js";
import { BertLayer } from "./block.js";
import { bertConfig, hubConfig, type BertConfig, type BertConfigFields } from "./config.js";
import { BertEmbeddings } from "./embeddings.js";

/** The blocks of BERT. */
export class BertEncoder extends EncoderBlocks<BertLayer> {
  /** @internal Built of weights by its model. */
  constructor(config: BertConfig, path: string, weights: Weights) {
    super(config, (i) => new BertLayer(config, `${path}.layer.${i}`, weights));
  }
}

/** tanh(dense(the first token)). */
export class BertPooler extends Module {
  /** The product before tanh. */
  dense: Linear;

  /** @internal Built of weights by its model. */
  constructor({ hiddenSize: C }: BertConfig, path: string, weights: Weights) {
    super();
    this.dense = weights.linear(`${path}.dense`, C, C, true);
  }

  /** hidden [B, T, C] → [B, C]. */
  forward(hidden: Tensor): Tensor {
    return this.dense.forward(firstToken(hidden)).tanh();
  }
}

/** Which of its parts a model has. */
interface Parts {
  /** Where its paths begin; "" where it stands alone. */
  path?: string | undefined;
  /** Whether it has a pooler; as in the file unless given. */
  pooler?: boolean | undefined;
}

/** BERT's encoder alone, or as a part of a classifier. Submodules and keys of `stateDict` are transformers'. */
export class BertModel extends TextEncoder {
  /** What `config.json` says, in one spelling. */
  readonly config: BertConfig & Record<string, unknown>;
  /** Words, positions and types. */
  embeddings: BertEmbeddings;
  /** The blocks. */
  encoder: BertEncoder;
  /** What makes one vector of the first token; null where the model has none. */
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
   * A model of transformers' configuration fields, drawn anew as transformers does: N(0, `initializer_range`²), the
   * padding's rows and biases 0, norms 1. The same after `manualSeed`. It is in training mode and every weight asks for
   * a gradient, unless stored as f16 or bf16.
   *
   * Throws `ERR_OPTION` for a field that is senseless or unknown, `ERR_UNSUPPORTED_MODEL` for what is not built,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: BertConfigFields, options?: FromConfigOptions): BertModel {
    return fromConfig("BertModel.fromConfig", config, options, {
      modelTypes: ["bert"],
      read: bertConfig,
      make: (settled, weights) => new BertModel(settled, weights),
    });
  }

  /** @internal */
  protected override get blocks() {
    return this.encoder;
  }

  /** @internal The configuration as `config.json` has it. */
  hubConfig(): Record<string, unknown> {
    return { ...hubConfig(this.config), ...this.configChanges() };
  }

  /** @internal What of the configuration has changed since it was read. */
  override configChanges(): Record<string, unknown> {
    return { architectures: [this.config.modelType === "roberta" ? "RobertaModel" : "BertModel"] };
  }
}

/** RoBERTa, which differs in its positions alone. */
export class RobertaModel extends BertModel {
  /**
   * A model of transformers' configuration fields, drawn anew as transformers does: N(0, `initializer_range`²), the
   * padding's rows and biases 0, norms 1. The same after `manualSeed`. It is in training mode and every weight asks for
   * a gradient, unless stored as f16 or bf16.
   *
   * Throws `ERR_OPTION` for a field that is senseless or unknown, `ERR_UNSUPPORTED_MODEL` for what is not built,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static override fromConfig(config: BertConfigFields, options?: FromConfigOptions): RobertaModel {
    return fromConfig("RobertaModel.fromConfig", config, options, {
      modelTypes: ["roberta"],
      read: bertConfig,
      make: (settled, weights) => new RobertaModel(settled, weights),
    });
  }
}

/** BERT with a classifier over its pooler. Submodules and keys of `stateDict` are transformers'. */
export class BertForSequenceClassification extends SequenceClassifier {
  /** What `config.json` says, in one spelling. */
  readonly config: BertConfig & Record<string, unknown>;
  /** The class as transformers names it. */
  readonly architecture = "BertForSequenceClassification";
  /** The encoder, with its pooler. */
  bert: BertModel;
  /** Dropout before the classifier. */
  dropout: Dropout;
  /** [C] → [N]. */
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
   * A model of transformers' configuration fields, drawn anew as transformers does: N(0, `initializer_range`²), the
   * padding's rows and biases 0, norms 1. The same after `manualSeed`. It is in training mode and every weight asks for
   * a gradient, unless stored as f16 or bf16.
   *
   * Throws `ERR_OPTION` for a field that is senseless or unknown, `ERR_UNSUPPORTED_MODEL` for what is not built,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: BertConfigFields, options?: FromConfigOptions): BertForSequenceClassification {
    return fromConfig("BertForSequenceClassification.fromConfig", config, options, {
      modelTypes: ["bert"],
      read: bertConfig,
      make: (settled, weights) => new BertForSequenceClassification(settled, weights),
    });
  }

  /** `bert`. */
  get encoder(): BertModel {
    return this.bert;
  }

  /** @internal hidden [B, T, C] → logits [B, N]. */
  logits(hidden: Tensor): Tensor {
    const pooled = (this.bert.pooler as BertPooler).forward(hidden);
    return this.classifier.forward(this.dropout.forward(pooled));
  }

  /** @internal The configuration as `config.json` has it. */
  hubConfig(): Record<string, unknown> {
    return { ...hubConfig(this.config), ...this.configChanges() };
  }
}

/** out_proj(tanh(dense(the first token))). */
export class RobertaClassificationHead extends Module {
  /** The product before tanh. */
  dense: Linear;
  /** Dropout before either product. */
  dropout: Dropout;
  /** [C] → [N]. */
  out_proj: Linear;

  /** @internal Built of weights by its model. */
  constructor({ hiddenSize: C, labels, classifierDropout }: BertConfig, path: string, weights: Weights) {
    super();
    this.dense = weights.linear(`${path}.dense`, C, C, true);
    this.dropout = new Dropout(classifierDropout);
    this.out_proj = weights.linear(`${path}.out_proj`, C, labels.length, true);
  }

  /** hidden [B, T, C] → [B, N]. */
  forward(hidden: Tensor): Tensor {
    const x = this.dense.forward(this.dropout.forward(firstToken(hidden))).tanh();
    return this.out_proj.forward(this.dropout.forward(x));
  }
}

/** RoBERTa with a classifier over its first token. Submodules and keys of `stateDict` are transformers'. */
export class RobertaForSequenceClassification extends SequenceClassifier {
  /** What `config.json` says, in one spelling. */
  readonly config: BertConfig & Record<string, unknown>;
  /** The class as transformers names it. */
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
   * A model of transformers' configuration fields, drawn anew as transformers does: N(0, `initializer_range`²), the
   * padding's rows and biases 0, norms 1. The same after `manualSeed`. It is in training mode and every weight asks for
   * a gradient, unless stored as f16 or bf16.
   *
   * Throws `ERR_OPTION` for a field that is senseless or unknown, `ERR_UNSUPPORTED_MODEL` for what is not built,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: BertConfigFields, options?: FromConfigOptions): RobertaForSequenceClassification {
    return fromConfig("RobertaForSequenceClassification.fromConfig", config, options, {
      modelTypes: ["roberta"],
      read: bertConfig,
      make: (settled, weights) => new RobertaForSequenceClassification(settled, weights),
    });
  }

  /** `roberta`. */
  get encoder(): BertModel {
    return this.roberta;
  }

  /** @internal hidden [B, T, C] → logits [B, N]. */
  logits(hidden: Tensor): Tensor {
    return this.classifier.forward(hidden);
  }

  /** @internal The configuration as `config.json` has it. */
  hubConfig(): Record<string, unknown> {
    return { ...hubConfig(this.config), ...this.configChanges() };
  }
}
