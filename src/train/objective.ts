/** What a model is trained for: how data becomes examples, and a batch of them a loss. */
import { tensor } from "../create.js";
import { attentionMask, type Batch } from "../data/batches.js";
import type { Encoder } from "../data/encode.js";
import { examplesOf, type OnProgress } from "../data/examples.js";
import type { TrainOn } from "../data/format.js";
import { labelledExamples } from "../data/labels.js";
import { transcriptExamples } from "../data/transcripts.js";
import { type Data, firstOf, textData } from "../data/read.js";
import type { ExampleStore } from "../data/store.js";
import { LowrankError } from "../errors.js";
import type { CausalLM } from "../models/causal-lm.js";
import type { SequenceClassifier } from "../models/classifier.js";
import type { SpeechToText } from "../models/speech-to-text.js";
import type { Tensor } from "../tensor.js";

/** How a model's texts become tokens. */
export interface Tokenisation {
  tokenizer: Encoder;
  /** The first is what ends a row of a language model; each of them ends a generation. */
  eosTokenIds: readonly number[];
  padTokenId: number;
  /** Longer rows are cut. */
  maxLength: number;
  /** How many ids the model has. */
  vocabSize: number;
}

/** How a model is trained. */
export interface TrainingOptions {
  /** Whether prompts, and turns of others than the assistant, are trained on too. */
  trainOn?: TrainOn | undefined;
  /** Share of each label that is spread over all; 0 unless given. Evaluations know nothing of it. */
  labelSmoothing?: number | undefined;
  /** The language of speech, where the model knows several. */
  language?: string | undefined;
}

/** A batch's forward pass: the sum of its losses, and of a classifier the scores of each row's classes. */
export interface Measured {
  loss: Tensor;
  /** [B, N]. */
  scores?: Tensor | undefined;
}

export interface Objective {
  readonly tokenisation: Tokenisation;
  /** Whether rows can share a sequence, and above which length they are kept apart; undefined where they cannot. */
  readonly packing: { apart: number } | undefined;
  /** The names of the classes; undefined where there are none. */
  readonly labels: readonly string[] | undefined;
  /** Modules that an adapter trains whole, by the ends of their paths. */
  readonly modulesToSave: readonly string[];
  /** The data tokenised, in the file's order. Errors: `ERR_DATA_ROW` for rows of another task; the signal's reason. */
  examples(data: Data, signal: AbortSignal | undefined, onProgress?: OnProgress): Promise<ExampleStore>;
  /** What is trained by: the sum of the losses of what a batch trains on, times `scale`. */
  lossSum(batch: Batch, scale: number): Tensor;
  /** What is judged by. */
  measure(batch: Batch): Measured;
}

/** The next token, of texts or of completions. */
export class LanguageModelling implements Objective {
  readonly labels = undefined;
  readonly modulesToSave = [];

  get packing(): { apart: number } {
    return { apart: this.model.turningPoint };
  }

  constructor(
    private readonly model: CausalLM,
    readonly tokenisation: Tokenisation,
    private readonly options: TrainingOptions = {},
  ) {}

  examples(data: Data, signal: AbortSignal | undefined, onProgress?: OnProgress): Promise<ExampleStore> {
    const { tokenizer, ...limits } = this.tokenisation;
    const { trainOn = "completion" } = this.options;
    return examplesOf(textData(data), tokenizer, { ...limits, trainOn, signal, onProgress });
  }

  lossSum({ ids, labels, shape, positions }: Batch, scale: number): Tensor {
    const { labelSmoothing } = this.options;
    const { device } = this.model;
    const input = tensor(ids, { shape, device });
    const positionIds = positions && tensor(positions, { shape, device });
    return this.model.loss(input, labels, { reduction: "sum", labelSmoothing, positionIds }).mul(scale);
  }

  measure({ ids, labels, shape }: Batch): Measured {
    const input = tensor(ids, { shape, device: this.model.device });
    return { loss: this.model.loss(input, labels, { reduction: "sum" }) };
  }
}

/** The class of a text. */
export class Classification implements Objective {
  /** The names that PEFT gives a classifier's head, whichever of them the model has. */
  readonly modulesToSave = ["classifier", "score"];
  readonly packing = undefined;

  constructor(
    private readonly model: SequenceClassifier,
    readonly tokenisation: Tokenisation,
    readonly labels: readonly string[],
    private readonly options: TrainingOptions = {},
  ) {}

  async examples(
    data: Data,
    signal: AbortSignal | undefined,
    onProgress?: OnProgress,
  ): Promise<ExampleStore> {
    if (data.kind !== "labels") {
      const what = 'there is no "label", and the model is a classifier';
      throw new LowrankError("ERR_DATA_ROW", `${firstOf(data)}: ${what}`);
    }
    const { tokenizer, maxLength, vocabSize } = this.tokenisation;
    return labelledExamples(data, this.labels, tokenizer, { maxLength, vocabSize, signal, onProgress });
  }

  lossSum(batch: Batch, scale: number): Tensor {
    return this.#scored(batch, this.options.labelSmoothing).loss.mul(scale);
  }

  measure(batch: Batch): Measured {
    return this.#scored(batch);
  }

  #scored(batch: Batch, labelSmoothing = 0): Measured {
    const { ids, labels, shape } = batch;
    const { device } = this.model;
    const mask = tensor(attentionMask(batch), { shape, device });
    const { loss, logits: scores } = this.model.forward(tensor(ids, { shape, device }), {
      attentionMask: mask,
      labels,
      labelSmoothing,
      reduction: "sum",
    });
    return { loss: loss as Tensor, scores };
  }
}

/** What is said in speech. */
export class Transcribing implements Objective {
  readonly packing = undefined;
  readonly labels = undefined;
  readonly modulesToSave = [];
  readonly #beginning: readonly number[];

  /** Throws `ERR_OPTION` for a language that the model has not, and where it has several and none is given. */
  constructor(
    private readonly model: SpeechToText,
    readonly tokenisation: Tokenisation,
    private readonly options: TrainingOptions = {},
  ) {
    this.#beginning = model.beginning("language", options.language);
  }

  async examples(
    data: Data,
    signal: AbortSignal | undefined,
    onProgress?: OnProgress,
  ): Promise<ExampleStore> {
    if (data.kind !== "speech") {
      const what = 'there is no "audio", and the model writes down speech';
      throw new LowrankError("ERR_DATA_ROW", `${firstOf(data)}: ${what}`);
    }
    const { tokenizer, eosTokenIds, maxLength, vocabSize } = this.tokenisation;
    const { windowSamples } = this.model;
    return transcriptExamples(data, tokenizer, {
      beginning: this.#beginning,
      eosTokenIds,
      maxLength,
      windowSamples,
      vocabSize,
      signal,
      onProgress,
    });
  }

  lossSum(batch: Batch, scale: number): Tensor {
    return this.#loss(batch, this.options.labelSmoothing).mul(scale);
  }

  measure(batch: Batch): Measured {
    return { loss: this.#loss(batch) };
  }

  #loss({ labels, shape: [rows, length], audio = [] }: Batch, labelSmoothing = 0): Tensor {
    // The decoder reads what is before each label: of the first token there is nothing to predict.
    const written = new Int32Array(rows * (length - 1));
    for (let row = 0; row < rows; row++)
      written.set(labels.subarray(row * length + 1, (row + 1) * length), row * (length - 1));
    const features = this.model.features(audio.map((samples) => samples()));
    return this.model.loss(features, written, { reduction: "sum", labelSmoothing });
  }
}
