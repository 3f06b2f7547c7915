/** DistilBERT as an encoder, and for sequence classification. Paths are transformers'. */
import { Dropout } from "../../nn/dropout.js";
import type { Linear } from "../../nn/linear.js";
import type { Tensor } from "../../tensor.js";
import { firstToken, SequenceClassifier } from "../classifier.js";
import { EncoderBlocks, TextEncoder } from "../encoder.js";
import { fromConfig, type FromConfigOptions } from "../from-config.js";
import type { Weights } from "../weights.js";
import { DistilBertBlock } from "./block.js";
import { distilBertConfig, hubConfig, type DistilBertConfig, type DistilBertConfigFields } from "./config.js";
import { DistilBertEmbeddings } from "./embeddings.js";

/** The blocks of DistilBERT. */
export class DistilBertTransformer extends EncoderBlocks<DistilBertBlock> {
  /** @internal Built of weights by its model. */
  constructor(config: DistilBertConfig, path: string, weights: Weights) {
    super(config, (i) => new DistilBertBlock(config, `${path}.layer.${i}`, weights));
  }
}

/** DistilBERT's encoder alone, or as a part of a classifier. Submodules and keys of `stateDict` are transformers'. */
export class DistilBertModel extends TextEncoder {
  /** What `config.json` says, in one spelling. */
  readonly config: DistilBertConfig & Record<string, unknown>;
  /** Words and positions. */
  embeddings: DistilBertEmbeddings;
  /** The blocks. */
  transformer: DistilBertTransformer;

  /** @internal Its paths begin with `prefix`. */
  constructor(config: DistilBertConfig, weights: Weights, prefix = "") {
    super(weights);
    this.config = config as DistilBertConfig & Record<string, unknown>;
    this.embeddings = new DistilBertEmbeddings(config, `${prefix}embeddings`, weights);
    this.transformer = new DistilBertTransformer(config, `${prefix}transformer`, weights);
  }

  /**
   * A model of transformers' configuration fields, drawn anew as transformers does: N(0, `initializer_range`²), the
   * padding's row and biases 0, norms 1, positions sines and cosines where the configuration says so. The same after
   * `manualSeed`. It is in training mode and every weight asks for a gradient, unless stored as f16 or bf16.
   *
   * Throws `ERR_OPTION` for a field that is senseless or unknown, `ERR_UNSUPPORTED_MODEL` for what is not built,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: DistilBertConfigFields, options?: FromConfigOptions): DistilBertModel {
    return fromConfig("DistilBertModel.fromConfig", config, options, {
      modelTypes: ["distilbert"],
      read: distilBertConfig,
      make: (settled, weights) => new DistilBertModel(settled, weights),
    });
  }

  /** @internal */
  protected override get blocks() {
    return this.transformer;
  }

  /** @internal The configuration as `config.json` has it. */
  hubConfig(): Record<string, unknown> {
    return { ...hubConfig(this.config), ...this.configChanges() };
  }

  /** @internal What of the configuration has changed since it was read. */
  override configChanges(): Record<string, unknown> {
    return { architectures: ["DistilBertModel"] };
  }
}

/** DistilBERT with a classifier over its first token. Submodules and keys of `stateDict` are transformers'. */
export class DistilBertForSequenceClassification extends SequenceClassifier {
  /** What `config.json` says, in one spelling. */
  readonly config: DistilBertConfig & Record<string, unknown>;
  /** The class as transformers names it. */
  readonly architecture = "DistilBertForSequenceClassification";
  /** The encoder. */
  distilbert: DistilBertModel;
  /** The product before the classifier. */
  pre_classifier: Linear;
  /** [C] → [N]. */
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
   * A model of transformers' configuration fields, drawn anew as transformers does: N(0, `initializer_range`²), the
   * padding's row and biases 0, norms 1, positions sines and cosines where the configuration says so. The same after
   * `manualSeed`. It is in training mode and every weight asks for a gradient, unless stored as f16 or bf16.
   *
   * Throws `ERR_OPTION` for a field that is senseless or unknown, `ERR_UNSUPPORTED_MODEL` for what is not built,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(
    config: DistilBertConfigFields,
    options?: FromConfigOptions,
  ): DistilBertForSequenceClassification {
    return fromConfig("DistilBertForSequenceClassification.fromConfig", config, options, {
      modelTypes: ["distilbert"],
      read: distilBertConfig,
      make: (settled, weights) => new DistilBertForSequenceClassification(settled, weights),
    });
  }

  /** `distilbert`. */
  get encoder(): DistilBertModel {
    return this.distilbert;
  }

  /** @internal hidden [B, T, C] → logits [B, N]. */
  logits(hidden: Tensor): Tensor {
    const pooled = this.pre_classifier.forward(firstToken(hidden)).relu();
    return this.classifier.forward(this.dropout.forward(pooled));
  }

  /** @internal The configuration as `config.json` has it. */
  hubConfig(): Record<string, unknown> {
    return { ...hubConfig(this.config), ...this.configChanges() };
  }
}
