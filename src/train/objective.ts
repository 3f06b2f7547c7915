/** Training objectives: each defines how data becomes examples, and how a batch of examples becomes a loss. */
import { tensor } from "../tensor/create.js";
import { buildAttentionMask, type Batch } from "../data/batches.js";
import type { Encoder } from "../data/encode.js";
import { tokenizeRows, type OnProgress } from "../data/examples.js";
import type { PromptFormat, TrainOn } from "../data/format.js";
import { tokenizeLabelled } from "../data/labels.js";
import { tokenizeTranscripts } from "../data/transcripts.js";
import { type Data, locateFirst, checkTextData } from "../data/read.js";
import type { ExampleStore } from "../data/store.js";
import { LowrankError } from "../errors.js";
import type { AdapterPerRow } from "../lora/layers/rows.js";
import type { CausalLM } from "../models/causal-lm.js";
import type { SequenceClassifier } from "../models/classifier.js";
import type { ForwardOptions } from "../models/pretrained.js";
import type { SpeechToText } from "../models/speech-to-text.js";
import type { Tensor } from "../tensor/tensor.js";

/** The conversion of a model's texts to tokens. */
export interface Tokenisation {
  tokenizer: Encoder;
  /** A language model's rows end with the first of these ids; each of them ends a generation. */
  eosTokenIds: readonly number[];
  padTokenId: number;
  /** The maximum length of a row; longer rows are truncated. */
  maxLength: number;
  /** The model's maximum. */
  modelLength: number;
  /** The number of token ids in the vocabulary. */
  vocabSize: number;
}

/** The options of an objective. */
export interface TrainingOptions {
  /** Whether prompts and the turns of other roles than the assistant are trained too. */
  trainOn?: TrainOn | undefined;
  /** Whether the chat template writes rows of prompt and completion. */
  promptFormat?: PromptFormat | undefined;
  /** The share of each label that is spread over all labels; 0 by default. Evaluations ignore it. */
  labelSmoothing?: number | undefined;
  /** The language of speech, for a model of several languages. */
  language?: string | undefined;
}

/** The result of a batch's forward pass: the sum of its losses and, for a classifier, the scores of each row. */
export interface Measured {
  loss: Tensor;
  /** Class scores, [B, N]. */
  scores?: Tensor | undefined;
}

/** The purpose of a loss. */
type Purpose = "training" | "evaluation";

/** Returns the label smoothing: an evaluation has none. */
function smoothFor(purpose: Purpose, { labelSmoothing }: TrainingOptions): number | undefined {
  return purpose === "training" ? labelSmoothing : undefined;
}

export interface Objective {
  readonly tokenisation: Tokenisation;
  /** Set if rows can share a sequence. Rows longer than `separateAbove` tokens do not share one with shorter rows. */
  readonly packing: { separateAbove: number } | undefined;
  /** The names of the classes; undefined for other tasks. */
  readonly labels: readonly string[] | undefined;
  /** The modules that are trained in full and saved with the adapter, by the ends of their paths. */
  readonly modulesToSave: readonly string[];
  /** Tokenises the data, in its order. Errors: `ERR_DATA_ROW` for rows of another task; the signal's reason. */
  createExamples(data: Data, signal: AbortSignal | undefined, onProgress?: OnProgress): Promise<ExampleStore>;
  /** Returns the training loss: the sum over the trained tokens or rows of a batch, times `scale`. */
  computeLossSum(batch: Batch, scale: number): Tensor;
  /** Returns the evaluation loss, without label smoothing. */
  measure(batch: Batch): Measured;
  /**
   * Returns the loss of each row, [B]. Row b uses only the adapter `names[b]`. Training has label smoothing, an
   * evaluation has none.
   */
  measureRows(batch: Batch, names: AdapterPerRow, purpose: Purpose): Measured;
}

/** Predicts the next token, of texts or of completions. */
export class LanguageModelling implements Objective {
  readonly labels = undefined;
  readonly modulesToSave = [];

  get packing(): { separateAbove: number } {
    return { separateAbove: this.model.turningPoint };
  }

  constructor(
    private readonly model: CausalLM,
    readonly tokenisation: Tokenisation,
    private readonly options: TrainingOptions = {},
  ) {}

  createExamples(
    data: Data,
    signal: AbortSignal | undefined,
    onProgress?: OnProgress,
  ): Promise<ExampleStore> {
    const { tokenizer, ...limits } = this.tokenisation;
    const { trainOn = "completion", promptFormat } = this.options;
    return tokenizeRows(checkTextData(data), tokenizer, {
      ...limits,
      trainOn,
      promptFormat,
      signal,
      onProgress,
    });
  }

  computeLossSum({ ids, labels, shape, positions }: Batch, scale: number): Tensor {
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

  measureRows({ ids, labels, shape }: Batch, names: AdapterPerRow, purpose: Purpose): Measured {
    const input = tensor(ids, { shape, device: this.model.device });
    const labelSmoothing = smoothFor(purpose, this.options);
    const options = { reduction: "none", labelSmoothing, adapterPerRow: names } as const;
    return { loss: this.model.loss(input, labels, options).sum(1) };
  }
}

/** Predicts the class of a text. */
export class Classification implements Objective {
  /** PEFT's names for a classifier's head; a model has one of them. */
  readonly modulesToSave = ["classifier", "score"];
  readonly packing = undefined;

  constructor(
    private readonly model: SequenceClassifier,
    readonly tokenisation: Tokenisation,
    readonly labels: readonly string[],
    private readonly options: TrainingOptions = {},
  ) {}

  async createExamples(
    data: Data,
    signal: AbortSignal | undefined,
    onProgress?: OnProgress,
  ): Promise<ExampleStore> {
    if (data.kind !== "labels") {
      const what = 'there is no "label", and the model is a classifier';
      throw new LowrankError("ERR_DATA_ROW", `${locateFirst(data)}: ${what}`);
    }
    const { tokenizer, maxLength, vocabSize } = this.tokenisation;
    return tokenizeLabelled(data, this.labels, tokenizer, { maxLength, vocabSize, signal, onProgress });
  }

  computeLossSum(batch: Batch, scale: number): Tensor {
    return this.#measureLoss(batch, this.options.labelSmoothing).loss.mul(scale);
  }

  measure(batch: Batch): Measured {
    return this.#measureLoss(batch);
  }

  measureRows(batch: Batch, names: AdapterPerRow, purpose: Purpose): Measured {
    return this.#measureLoss(batch, smoothFor(purpose, this.options), {
      reduction: "none",
      adapterPerRow: names,
    });
  }

  #measureLoss(
    batch: Batch,
    labelSmoothing = 0,
    wanted: Pick<ForwardOptions, "reduction" | "adapterPerRow"> = { reduction: "sum" },
  ): Measured {
    const { ids, labels, shape } = batch;
    const { device } = this.model;
    const mask = tensor(buildAttentionMask(batch), { shape, device });
    const { loss, logits: scores } = this.model.forward(tensor(ids, { shape, device }), {
      attentionMask: mask,
      labels,
      labelSmoothing,
      ...wanted,
    });
    return { loss: loss as Tensor, scores };
  }
}

/** Transcribes speech. */
export class Transcribing implements Objective {
  readonly packing = undefined;
  readonly labels = undefined;
  readonly modulesToSave = [];
  readonly #beginning: readonly number[];

  /** Throws `ERR_OPTION` for an unknown language, and for a missing one if the model has several. */
  constructor(
    private readonly model: SpeechToText,
    readonly tokenisation: Tokenisation,
    private readonly options: TrainingOptions = {},
  ) {
    this.#beginning = model.buildBeginning("language", options.language);
  }

  async createExamples(
    data: Data,
    signal: AbortSignal | undefined,
    onProgress?: OnProgress,
  ): Promise<ExampleStore> {
    if (data.kind !== "speech") {
      const what = 'there is no "audio", and the model transcribes speech';
      throw new LowrankError("ERR_DATA_ROW", `${locateFirst(data)}: ${what}`);
    }
    const { tokenizer, eosTokenIds, maxLength, vocabSize } = this.tokenisation;
    const { windowSamples } = this.model;
    return tokenizeTranscripts(data, tokenizer, {
      beginning: this.#beginning,
      eosTokenIds,
      maxLength,
      windowSamples,
      vocabSize,
      signal,
      onProgress,
    });
  }

  computeLossSum(batch: Batch, scale: number): Tensor {
    return this.#computeLoss(batch, this.options.labelSmoothing).mul(scale);
  }

  measure(batch: Batch): Measured {
    return { loss: this.#computeLoss(batch) };
  }

  measureRows(batch: Batch, names: AdapterPerRow, purpose: Purpose): Measured {
    const wanted = { reduction: "none", adapterPerRow: names } as const;
    return { loss: this.#computeLoss(batch, smoothFor(purpose, this.options), wanted).sum(1) };
  }

  #computeLoss(
    { labels, shape: [rows, length], audio = [] }: Batch,
    labelSmoothing = 0,
    wanted: Pick<ForwardOptions, "reduction" | "adapterPerRow"> = { reduction: "sum" },
  ): Tensor {
    // The decoder predicts each token from those before it, so the first token has no prediction.
    const written = new Int32Array(rows * (length - 1));
    for (let row = 0; row < rows; row++)
      written.set(labels.subarray(row * length + 1, (row + 1) * length), row * (length - 1));
    const features = this.model.features(audio.map((samples) => samples()));
    return this.model.loss(features, written, { ...wanted, labelSmoothing });
  }
}
