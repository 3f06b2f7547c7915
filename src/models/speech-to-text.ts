/** What every model offers that writes down speech. */
import { flag, options as known, refuse } from "../argument.js";
import { full, tensor } from "../create.js";
import { LowrankError } from "../errors.js";
import { perRow } from "../lora/adapter/per-row.js";
import type { Embedding } from "../nn/embedding.js";
import type { Linear } from "../nn/linear.js";
import { scope } from "../scope.js";
import { isTensor, type Tensor } from "../tensor.js";
import { tensorOf } from "../tensor/arguments.js";
import { checkLabels, givenLabels, IGNORED, type Targets } from "./head-loss.js";
import { causalOutput } from "./output.js";
import { lossOptions, PretrainedModel, type ForwardOptions, type ForwardOutput } from "./pretrained.js";
import { tokenLoss } from "./token-loss.js";

/** What `forward` takes besides features: labels, or what the decoder reads. */
export interface SpeechForwardOptions extends Pick<
  ForwardOptions,
  "labelSmoothing" | "reduction" | "adapterPerRow"
> {
  /**
   * i32 [B, T]: what the decoder is to write, −100 where ignored. It reads them moved one to the right, behind the token
   * that texts begin with, with padding in the place of what is ignored.
   */
  labels?: Tensor | Int32Array | undefined;
  /** i32 [B, T]: what the decoder reads; made of the labels unless given. */
  decoderInputIds?: Tensor | undefined;
  /** Whether the output has `hiddenStates`, of the decoder, and `encoderHiddenStates`; false. */
  outputHiddenStates?: boolean | undefined;
}

/** What `forward` of such a model returns. */
export interface SpeechOutput extends ForwardOutput {
  /** With `outputHiddenStates`: the input of the encoder's first block and each block's output, the last after the norm. */
  readonly encoderHiddenStates?: readonly Tensor[] | undefined;
}

/** Hidden states as they are collected. */
export interface SpeechStates {
  encoder: Tensor[];
  decoder: Tensor[];
}

/** What the decoder is asked to write: the words as they were said, or in English. */
export type SpeechTask = "transcribe" | "translate";

/** What `transcribe` takes besides the samples. */
export interface TranscribeOptions {
  /** The language that is spoken, by its code or its English name; found out by the model unless given. */
  language?: string | undefined;
  /** The words as they were said, or in English; `transcribe`. */
  task?: SpeechTask | undefined;
  /** Tokens of each window at most; as many as the model's longest text has room for unless given. */
  maxNewTokens?: number | undefined;
  /** Ends it between tokens, with its reason. */
  signal?: AbortSignal | undefined;
}

/** What was said. */
export interface Transcription {
  /** The text, without blanks around it. */
  text: string;
  /** Its tokens, without those that it begins and ends with. */
  tokens: number[];
  /** The code of the language; undefined for a model of English alone. */
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

/** What every model offers that writes down speech. */
export abstract class SpeechToText extends PretrainedModel {
  /** What `config.json` says, in one spelling. */
  abstract override readonly config: {
    /** Rows of the decoder's embedding, and logits of a token. */
    vocabSize: number;
    /** Tokens of the longest text. */
    maxPositionEmbeddings: number;
    /** Each of them ends a text. */
    eosTokenIds: readonly number[];
    /** The token that every text begins with. */
    decoderStartTokenId: number;
    /** The id of padding. */
    padTokenId: number;
  } & Record<string, unknown>;
  /** The output head [C] → [V]. */
  abstract readonly head: Linear;
  /** PEFT has a name for the task, and by it a class that takes ids where these models take features. */
  readonly taskType = undefined;

  /**
   * @internal Features, and ids i32 [B, T] of the decoder → [B, T, C], after the last norm; `states` collects the hidden
   * states.
   */
  abstract hidden(features: Tensor, ids: Tensor, states?: SpeechStates): Tensor;
  /** @internal How many samples features are made of: what the model hears at once. */
  abstract readonly windowSamples: number;
  /**
   * Features of samples at 16 kHz, from −1 to 1, as `forward` takes them, of one Float32Array or of several: shorter
   * speech is followed by silence, and what comes after the model's window is left out. Throws `ERR_OPTION` for samples
   * of another kind or that are not finite.
   */
  abstract features(samples: Float32Array | readonly Float32Array[]): Tensor;
  /**
   * Writes down what is said in samples at 16 kHz, from −1 to 1. Throws `ERR_OPTION`, `ERR_UNSUPPORTED_MODEL`,
   * `ERR_FILE_NOT_FOUND` for a model without a tokenizer, `ERR_NOT_FINITE`; the signal's reason.
   */
  abstract transcribe(samples: Float32Array, options?: TranscribeOptions): Promise<Transcription>;
  /** @internal Ids that a text in `language` begins with, for training. Throws as `transcribe` does. */
  abstract beginning(where: string, language: string | undefined): number[];
  /** @internal The embedding that takes the decoder's ids. */
  abstract inputEmbedding(): Embedding;

  /**
   * Features f32 [B, mels, frames] → hidden [B, T, C] of the decoder, and the loss where labels are given: a scalar, or
   * without a reduction [B, T]. `logits` [B, T, V] are made when they are first read.
   *
   * Throws `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`, `ERR_INDEX` for a label that is no token or a text that is too long,
   * `ERR_OPTION` for neither labels nor decoderInputIds, `ERR_UNKNOWN_ADAPTER`; reading `logits` throws as a language
   * model's does.
   */
  override forward(features: Tensor, options: SpeechForwardOptions = {}): SpeechOutput {
    tensorOf("forward", "its input", features);
    const given = known("forward", options, FORWARD_OPTIONS);
    if (features.dtype !== "f32")
      throw new LowrankError("ERR_DTYPE", `forward: features are f32, not ${features.dtype}`);
    const wanted = lossOptions(given);
    const { head } = this;
    const batch = features.shape[0] as number;
    const labels = given.labels === undefined ? undefined : this.#labels(given.labels, batch);
    const ids = this.#decoderIds(given.decoderInputIds, labels, batch);
    const { adapterPerRow: names } = wanted;
    const states: SpeechStates | undefined =
      given.outputHiddenStates !== undefined &&
      flag("forward", "outputHiddenStates", given.outputHiddenStates)
        ? { encoder: [], decoder: [] }
        : undefined;
    const hidden = perRow(this, batch, names, () => this.hidden(features, ids, states));
    const loss = labels && scope(() => tokenLoss(this, head, hidden, labels.targets, wanted));
    labels?.targets.tensor.dispose();
    const made = { hidden, loss, hiddenStates: states?.decoder, encoderHiddenStates: states?.encoder };
    return causalOutput(head, made, () => perRow(this, batch, names, () => head.forward(hidden)));
  }

  /**
   * The loss alone: `forward(features, { labels, ...options }).loss`, with nothing else kept. Throws what `forward`
   * does.
   */
  loss(
    features: Tensor,
    labels: Tensor | Int32Array,
    options: Omit<SpeechForwardOptions, "labels"> = {},
  ): Tensor {
    if (labels === undefined) refuse("loss", "labels", "an i32 tensor or an Int32Array", labels);
    return scope(() => this.forward(features, { ...options, labels }).loss as Tensor);
  }

  /** Labels [B, T] as targets, and what the decoder reads for them. */
  #labels(labels: Tensor | Int32Array, batch: number): { targets: Targets; ids: () => Tensor; T: number } {
    const { shape, host } = givenLabels(labels);
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

  #decoderIds(
    given: Tensor | undefined,
    labels: { ids: () => Tensor; T: number } | undefined,
    batch: number,
  ): Tensor {
    if (given === undefined) {
      if (labels !== undefined) return labels.ids();
      throw new LowrankError(
        "ERR_OPTION",
        "forward: give labels, or decoderInputIds, which the decoder reads; transcribe writes a text",
      );
    }
    const ids = tensorOf("forward", "decoderInputIds", given);
    const T = labels?.T ?? ids.shape[1];
    if (ids.shape.join() === [batch, T].join()) return ids;
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `forward: decoderInputIds are [${ids.shape.join(", ")}]; they are [${batch}, ${T ?? "T"}]`,
    );
  }
}
