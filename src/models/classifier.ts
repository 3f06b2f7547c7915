/** The base classes of classifiers of texts and of images. */
import { refuse } from "../arguments/check.js";
import { runPerRow } from "../lora/adapter/per-row.js";
import { scope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import { classify, type Classified, type ClassifyOptions } from "./classify.js";
import type { TextEncoder } from "./encoder.js";
import { computeClassificationLoss, writeLabels, type LabelConfig } from "./labels.js";
import {
  checkForwardOptions,
  type ForwardOptions,
  type ForwardOutput,
  type LossOptions,
  PretrainedModel,
} from "./pretrained.js";
import { readTokenShape } from "./text-input.js";

/** The base class of classifiers of texts and of images. */
export abstract class Classifier extends PretrainedModel {
  /** The fields of `config.json`, in camel case. */
  abstract override readonly config: LabelConfig & Record<string, unknown>;
  /** The class name in transformers. */
  abstract readonly architecture: string;

  /** @internal Maps the input to hidden states [B, T, C], after the last norm. */
  abstract computeHidden(input: Tensor | null, options?: ForwardOptions, states?: Tensor[]): Tensor;
  /** @internal The width C of `inputsEmbeds`; undefined for a model that takes no text. */
  get embeddingWidth(): number | undefined {
    return undefined;
  }
  /** @internal Maps hidden [B, T, C] to logits [B, N]. */
  abstract computeLogits(hidden: Tensor): Tensor;

  /**
   * Maps the input to logits [B, N] and hidden [B, T, C], and computes the loss where labels are given: a scalar, or
   * without a reduction [B], or [B, N] for regression and multi-label classification. Label smoothing applies to
   * single-label classification only.
   *
   * Throws `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`, `ERR_INDEX`, `ERR_OPTION`, `ERR_UNKNOWN_ADAPTER`.
   */
  override forward(input: Tensor | null, options: ForwardOptions = {}): ForwardOutput {
    const wanted = checkForwardOptions(input, options, this.embeddingWidth);
    const { labels, adapterPerRow: names } = wanted;
    const states: Tensor[] | undefined = wanted.outputHiddenStates === true ? [] : undefined;
    const outputs = runPerRow(this, readTokenShape(input, wanted).shape[0] as number, names, () => {
      const hidden = this.computeHidden(input, options, states);
      const logits = this.computeLogits(hidden);
      return states === undefined ? { logits, hidden } : { logits, hidden, hiddenStates: states };
    });
    if (labels === undefined) return outputs;
    const { problemType } = this.config;
    const { labelSmoothing, reduction } = wanted;
    const loss = computeClassificationLoss(outputs.logits, labels, {
      labelSmoothing,
      reduction,
      problemType,
      names,
    });
    return { ...outputs, loss };
  }

  /**
   * Returns only the loss: `forward(input, { labels, ...options }).loss`. Frees the other outputs. Labels are i32 [B],
   * or f32 [B, N] for regression and multi-label classification. Throws as `forward` does.
   */
  loss(input: Tensor | null, labels: Tensor | Int32Array, options: LossOptions = {}): Tensor {
    if (labels === undefined) refuse("loss", "labels", "a tensor or an Int32Array", labels);
    return scope(() => this.forward(input, { ...options, labels }).loss as Tensor);
  }

  /** @internal Configuration fields that have changed since loading. */
  override listConfigChanges(): Record<string, unknown> {
    return { architectures: [this.architecture], ...writeLabels(this.config) };
  }
}

/** A classifier of texts over an encoder. */
export abstract class SequenceClassifier extends Classifier {
  /** The task in PEFT's terms. */
  readonly taskType = "SEQ_CLS";
  /** The encoder that computes the hidden states. */
  abstract readonly encoder: TextEncoder;

  /** The device of the weights: `cpu`, `gpu:0`. */
  get device() {
    return this.encoder.device;
  }

  /** @internal The width C of `inputsEmbeds`. */
  override get embeddingWidth(): number {
    return this.encoder.embeddings.word_embeddings.embeddingDim;
  }

  /** Returns the token embeddings [B, T, C] of ids i32 [B, T], as `inputsEmbeds` of `forward` expects them. */
  embedTokens(ids: Tensor): Tensor {
    return this.encoder.embedTokens(ids);
  }

  /**
   * Returns the class of each text and its scores, in the order of the texts. The class is the one with the highest
   * logit, as in `evaluate`. Longer texts are truncated at the end and marked as `truncated`.
   *
   * Throws `ERR_FILE_NOT_FOUND` for a model without a tokenizer, `ERR_OPTION`, `ERR_NOT_FINITE`; the signal's reason.
   */
  classify(texts: readonly string[], options: ClassifyOptions = {}): Promise<Classified[]> {
    return classify(this, texts, options);
  }

  /** @internal Maps ids i32 [B, T] to [B, T, C]. */
  override computeHidden(ids: Tensor | null, options: ForwardOptions = {}, states?: Tensor[]): Tensor {
    this.encoder.gradientCheckpointing = this.gradientCheckpointing;
    return this.encoder.computeHidden(ids, options, states);
  }
}

/** Returns the first token's hidden state: x [B, T, C] → [B, C]. */
export function takeFirstToken(x: Tensor): Tensor {
  const [B, , C] = x.shape as [number, number, number];
  return x.slice(1, 0, 1).reshape(B, C);
}
