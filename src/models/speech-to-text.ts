/** The base class of models that transcribe speech. */
import { checkFlag, checkKnownOptions, refuse } from "../arguments/check.js";
import { full, tensor } from "../tensor/create.js";
import { LowrankError } from "../errors.js";
import { runPerRow } from "../lora/adapter/per-row.js";
import type { Embedding } from "../nn/embedding.js";
import type { Linear } from "../nn/linear.js";
import { scope } from "../tensor/scope.js";
import { isTensor, type Tensor } from "../tensor/tensor.js";
import { checkTensor } from "../tensor/arguments.js";
import { checkLabels, checkGivenLabels, IGNORED, type Targets } from "./head-loss.js";
import { createCausalOutput } from "./output.js";
import { checkLossOptions, PretrainedModel, type ForwardOptions, type ForwardOutput } from "./pretrained.js";
import { computeTokenLoss } from "./token-loss.js";

/** Options of `forward` for speech: labels, or the decoder's input. */
export interface SpeechForwardOptions extends Pick<
  ForwardOptions,
  "labelSmoothing" | "reduction" | "adapterPerRow"
> {
  /**
   * i32 [B, T]: the tokens to predict, −100 where ignored. The decoder's input is the labels shifted one to the right,
   * after the start token, with ignored ones replaced by padding.
   */
  labels?: Tensor | Int32Array | undefined;
  /** i32 [B, T]: the decoder's input; by default derived from the labels. */
  decoderInputIds?: Tensor | undefined;
  /** Whether to return `hiddenStates` (the decoder's) and `encoderHiddenStates`; false. */
  outputHiddenStates?: boolean | undefined;
}

/** The output of `forward` for speech. */
export interface SpeechOutput extends ForwardOutput {
  /**
   * With `outputHiddenStates`: the input of the encoder's first block and each block's output, the last after the norm.
   */
  readonly encoderHiddenStates?: readonly Tensor[] | undefined;
}

/** Collected hidden states. */
export interface SpeechStates {
  encoder: Tensor[];
  decoder: Tensor[];
}

/** The task of a transcription: the spoken words, or their English translation. */
export type SpeechTask = "transcribe" | "translate";

/** Options of `transcribe`. */
export interface TranscribeOptions {
  /** The spoken language, as a code or an English name; detected by default. */
  language?: string | undefined;
  /** Transcribe in the spoken language, or translate into English; `transcribe`. */
  task?: SpeechTask | undefined;
  /** The maximum number of tokens per window; by default the room in the model's longest text. */
  maxNewTokens?: number | undefined;
  /** Aborts between tokens, with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** The result of `transcribe`. */
export interface Transcription {
  /** The text, trimmed. */
  text: string;
  /** Its tokens, without the start and end tokens. */
  tokens: number[];
  /** The code of the language; undefined for an English-only model. */
  language: string | undefined;
}

const FORWARD_OPTIONS = [
  "labels",
  "decoderInputIds",
  "labelSmoothing",
  "reduction",
  "adapterPerRow",
  "outputHiddenStates",
] as const satisfies (keyof SpeechForwardOptions)[];

/** The base class of models that transcribe speech. */
export abstract class SpeechToText extends PretrainedModel {
  /** The fields of `config.json`, in camel case. */
  abstract override readonly config: {
    /** Rows of the decoder's embedding and size of the logits. */
    vocabSize: number;
    /** The longest text, in tokens. */
    maxPositionEmbeddings: number;
    /** Ids that end a text. */
    eosTokenIds: readonly number[];
    /** The first token of every text. */
    decoderStartTokenId: number;
    /** The padding id. */
    padTokenId: number;
  } & Record<string, unknown>;
  /** The output head [C] → [V]. */
  abstract readonly head: Linear;
  /** Undefined: PEFT's class for this task takes ids, and these models take features. */
  readonly taskType = undefined;

  /**
   * @internal Maps features and decoder ids i32 [B, T] to the decoder's hidden states [B, T, C] after the last norm.
   * Hidden states of the blocks are pushed to `states`.
   */
  abstract computeHidden(features: Tensor, ids: Tensor, states?: SpeechStates): Tensor;
  /** @internal The window length of the encoder, in samples. */
  abstract readonly windowSamples: number;
  /**
   * Computes the features for `forward` from samples at 16 kHz, from −1 to 1: one Float32Array or several. Speech
   * shorter than the model's window is padded with silence, and longer speech is truncated. Throws `ERR_OPTION` for
   * samples of another type or that are not finite.
   */
  abstract features(samples: Float32Array | readonly Float32Array[]): Tensor;
  /**
   * Transcribes speech from samples at 16 kHz, from −1 to 1. Throws `ERR_OPTION`, `ERR_UNSUPPORTED_MODEL`,
   * `ERR_FILE_NOT_FOUND` for a model without a tokenizer, `ERR_NOT_FINITE`; the signal's reason.
   */
  abstract transcribe(samples: Float32Array, options?: TranscribeOptions): Promise<Transcription>;
  /** @internal Returns the start tokens of a text in `language`, for training. Throws as `transcribe` does. */
  abstract buildBeginning(where: string, language: string | undefined): number[];
  /** @internal The decoder's token embedding. */
  abstract getInputEmbedding(): Embedding;

  /**
   * Maps features f32 [B, mels, frames] to the decoder's hidden [B, T, C], and computes the loss where labels are
   * given: a scalar, or [B, T] without a reduction. `logits` [B, T, V] are computed on first access.
   *
   * Throws `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`, `ERR_INDEX` for a label outside the vocabulary or a text that is too
   * long, `ERR_OPTION` for neither labels nor decoderInputIds, `ERR_UNKNOWN_ADAPTER`; reading `logits` throws as in a
   * language model.
   */
  override forward(features: Tensor, options: SpeechForwardOptions = {}): SpeechOutput {
    checkTensor("forward", "its input", features);
    const given = checkKnownOptions("forward", options, FORWARD_OPTIONS);
    if (features.dtype !== "f32")
      throw new LowrankError("ERR_DTYPE", `forward: features are f32, not ${features.dtype}`);
    const wanted = checkLossOptions(given);
    const { head } = this;
    const batch = features.shape[0] as number;
    const labels = given.labels === undefined ? undefined : this.#resolveLabels(given.labels, batch);
    const ids = this.#resolveDecoderIds(given.decoderInputIds, labels, batch);
    const { adapterPerRow: names } = wanted;
    const states: SpeechStates | undefined =
      given.outputHiddenStates !== undefined &&
      checkFlag("forward", "outputHiddenStates", given.outputHiddenStates)
        ? { encoder: [], decoder: [] }
        : undefined;
    const hidden = runPerRow(this, batch, names, () => this.computeHidden(features, ids, states));
    const loss = labels && scope(() => computeTokenLoss(this, head, hidden, labels.targets, wanted));
    labels?.targets.tensor.dispose();
    const outputs = { hidden, loss, hiddenStates: states?.decoder, encoderHiddenStates: states?.encoder };
    return createCausalOutput(head, outputs, () => runPerRow(this, batch, names, () => head.forward(hidden)));
  }

  /**
   * Returns only the loss: `forward(features, { labels, ...options }).loss`. Frees the other outputs. Throws as
   * `forward` does.
   */
  loss(
    features: Tensor,
    labels: Tensor | Int32Array,
    options: Omit<SpeechForwardOptions, "labels"> = {},
  ): Tensor {
    if (labels === undefined) refuse("loss", "labels", "an i32 tensor or an Int32Array", labels);
    return scope(() => this.forward(features, { ...options, labels }).loss as Tensor);
  }

  /** Returns labels [B, T] as targets, with the decoder input derived from them. */
  #resolveLabels(
    labels: Tensor | Int32Array,
    batch: number,
  ): { targets: Targets; ids: () => Tensor; T: number } {
    const { shape, host } = checkGivenLabels(labels);
    const size = shape.reduce((n, d) => n * d, 1);
    const T = Math.floor(size / batch);
    const fits = isTensor(labels) ? shape.length === 2 && shape[0] === batch : T * batch === size;
    if (!fits || size === 0) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `forward: labels are [${shape.join(", ")}]; for features of ${batch} rows they are [${batch}, T]`,
      );
    }
    const { device } = this;
    const { decoderStartTokenId: start, padTokenId: pad, vocabSize } = this.config;
    if (host === undefined) {
      const given = labels as Tensor;
      const read = (): Tensor =>
        full([batch, 1], start, { dtype: "i32", device }).concat(
          given
            .slice(1, 0, T - 1)
            .to("f32")
            .where(given.slice(1, 0, T - 1).ne(IGNORED), pad)
            .to("i32"),
          1,
        );
      return { targets: { tensor: given.reshape(size), known: undefined }, ids: read, T };
    }
    checkLabels(host, T, vocabSize);
    const read = Int32Array.from(host, (_, i) => {
      const before = i % T === 0 ? start : (host[i - 1] as number);
      return before === IGNORED ? pad : before;
    });
    return {
      targets: { tensor: tensor(host, { shape: [size], device }), known: host },
      ids: () => tensor(read, { shape: [batch, T], device }),
      T,
    };
  }

  #resolveDecoderIds(
    given: Tensor | undefined,
    labels: { ids: () => Tensor; T: number } | undefined,
    batch: number,
  ): Tensor {
    if (given === undefined) {
      if (labels !== undefined) return labels.ids();
      throw new LowrankError(
        "ERR_OPTION",
        "forward: give labels or decoderInputIds, the decoder's input; to transcribe speech, call transcribe",
      );
    }
    const ids = checkTensor("forward", "decoderInputIds", given);
    const T = labels?.T ?? ids.shape[1];
    if (ids.shape.join() === [batch, T].join()) return ids;
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `forward: decoderInputIds are [${ids.shape.join(", ")}]; they are [${batch}, ${T ?? "T"}]`,
    );
  }
}
