/** What every classifier offers, of texts and of images. */
import { refuse } from "../argument.js";
import { perRow } from "../lora/adapter/per-row.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import { classify, type Classified, type ClassifyOptions } from "./classify.js";
import type { TextEncoder } from "./encoder.js";
import { classificationLoss, hubLabels, type LabelConfig } from "./labels.js";
import {
  forwardOptions,
  type ForwardOptions,
  type ForwardOutput,
  type LossOptions,
  PretrainedModel,
} from "./pretrained.js";
import { placesOf } from "./text-input.js";

/** What every classifier offers, of texts and of images. */
export abstract class Classifier extends PretrainedModel {
  /** What `config.json` says, in one spelling. */
  abstract override readonly config: LabelConfig & Record<string, unknown>;
  /** The class as transformers names it. */
  abstract readonly architecture: string;

  /** @internal Input → hidden states [B, T, C], after the last norm. */
  abstract hidden(input: Tensor | null, options?: ForwardOptions, states?: Tensor[]): Tensor;
  /** @internal C of the embeddings that it takes in place of ids; undefined where it reads no texts. */
  get embeddingWidth(): number | undefined {
    return undefined;
  }
  /** @internal hidden [B, T, C] → logits [B, N]. */
  abstract logits(hidden: Tensor): Tensor;

  /**
   * Input → logits [B, N], hidden [B, T, C], and the loss where labels are given: a scalar, or without a reduction one
   * a row [B], or a value [B, N] where values or several classes are predicted. Labels that are smoothed are single
   * classes.
   *
   * Throws `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`, `ERR_INDEX`, `ERR_OPTION`, `ERR_UNKNOWN_ADAPTER`.
   */
  override forward(input: Tensor | null, options: ForwardOptions = {}): ForwardOutput {
    const wanted = forwardOptions(input, options, this.embeddingWidth);
    const { labels, adapterPerRow: names } = wanted;
    const states: Tensor[] | undefined = wanted.outputHiddenStates === true ? [] : undefined;
    const made = perRow(this, placesOf(input, wanted).shape[0] as number, names, () => {
      const hidden = this.hidden(input, options, states);
      const logits = this.logits(hidden);
      return states === undefined ? { logits, hidden } : { logits, hidden, hiddenStates: states };
    });
    if (labels === undefined) return made;
    const { problemType } = this.config;
    const { labelSmoothing, reduction } = wanted;
    const loss = classificationLoss(made.logits, labels, { labelSmoothing, reduction, problemType, names });
    return { ...made, loss };
  }

  /**
   * The loss alone: `forward(input, { labels, ...options }).loss`, with nothing else kept. Labels are i32 [B], or
   * f32 [B, N] where several may hold or values are predicted. Throws what `forward` does.
   */
  loss(input: Tensor | null, labels: Tensor | Int32Array, options: LossOptions = {}): Tensor {
    if (labels === undefined) refuse("loss", "labels", "a tensor or an Int32Array", labels);
    return scope(() => this.forward(input, { ...options, labels }).loss as Tensor);
  }

  /** @internal What of the configuration has changed since it was read. */
  override configChanges(): Record<string, unknown> {
    return { architectures: [this.architecture], ...hubLabels(this.config) };
  }
}

/** A classifier of texts over an encoder. */
export abstract class SequenceClassifier extends Classifier {
  /** PEFT's name of the task. */
  readonly taskType = "SEQ_CLS";
  /** The encoder whose hidden states are classified. */
  abstract readonly encoder: TextEncoder;

  /** Where its weights are: `cpu`, `gpu:0`. */
  get device() {
    return this.encoder.device;
  }

  /** @internal C of the embeddings that it takes in place of ids. */
  override get embeddingWidth(): number {
    return this.encoder.embeddings.word_embeddings.embeddingDim;
  }

  /** The token embeddings of ids i32 [B, T], as `inputsEmbeds` of `forward` takes them: [B, T, C]. */
  embedTokens(ids: Tensor): Tensor {
    return this.encoder.embedTokens(ids);
  }

  /**
   * The class of each text and its scores, in the order of the texts: as `evaluate` takes the class, by the highest
   * logit. A longer text loses its end, and says so.
   *
   * Throws `ERR_FILE_NOT_FOUND` for a model without a tokenizer, `ERR_OPTION`, `ERR_NOT_FINITE`; the signal's reason.
   */
  classify(texts: readonly string[], options: ClassifyOptions = {}): Promise<Classified[]> {
    return classify(this, texts, options);
  }

  /** @internal ids i32 [B, T] → [B, T, C]. */
  override hidden(ids: Tensor | null, options: ForwardOptions = {}, states?: Tensor[]): Tensor {
    this.encoder.gradientCheckpointing = this.gradientCheckpointing;
    return this.encoder.hidden(ids, options, states);
  }
}

/** x [B, T, C] → [B, C]. */
export function firstToken(x: Tensor): Tensor {
  const [B, , C] = x.shape as [number, number, number];
  return x.slice(1, 0, 1).reshape(B, C);
}
