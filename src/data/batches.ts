import { LowrankError } from "../errors.js";
import { joinExamples, Packing } from "./packing.js";
import { shuffleEpoch } from "./shuffle.js";
import {
  type Example,
  type Examples,
  computeFingerprint,
  gatherRows,
  IGNORED,
  listLengths,
  readLength,
  readTrained,
  type RowReader,
} from "./store.js";

/**
 * A micro-batch: rows padded on the right to the longest. In a causal model no token attends to the padding; an encoder
 * gets the mask.
 */
export interface Batch {
  /** [B, T], row-major. */
  ids: Int32Array;
  /** [B, T]; [B, 1] where each row has one label. */
  labels: Int32Array;
  shape: [rows: number, length: number];
  /** Tokens of each row, without padding. */
  lengths: number[];
  /** [B, T], where rows are packed: each token's position in its row; positions also restart at padding. */
  positions?: Int32Array | undefined;
  /** The sum of `lengths`, and the number of trained predictions. */
  tokens: number;
  trained: number;
  /** For speech, functions that return the samples of each row. */
  audio?: readonly (() => Float32Array)[] | undefined;
}

/** The micro-batches of one optimizer step with their totals, known before the first runs. */
export interface StepBatches {
  epoch: number;
  batches: Batch[];
  tokens: number;
  /** The number of labels in the step's mean: each micro-batch contributes its sum of losses divided by this. */
  trained: number;
}

/** The micro-batches of one optimizer step, divided among devices. */
export interface DividedStep extends Omit<StepBatches, "batches"> {
  /** The micro-batches of each device, without the last devices that have none. */
  batches: Batch[][];
}

/** The rows of an optimizer step, divided among devices. */
export interface DividedRows extends Omit<StepBatches, "batches"> {
  /** The sequences of each micro-batch of each device, as the numbers of their rows. */
  batches: number[][][][];
}

/** A run's position in its data, as stored in checkpoints. */
export interface Cursor {
  /** Completed optimizer steps. */
  step: number;
  seed: number;
  batchSize: number;
  gradientAccumulation: number;
  examples: number;
  /** A hash of all ids and labels. */
  data: string;
  /** The number of packed sequences; undefined without packing. */
  sequences?: number | undefined;
}

export interface PlanOptions {
  batchSize: number;
  gradientAccumulation: number;
  seed: number;
  padTokenId: number;
  /** The number of optimizer steps, over as many epochs as needed; or the number of epochs, which may be a fraction. */
  steps?: number | undefined;
  epochs?: number | undefined;
  /** Packing: the maximum tokens of a sequence, and the length above which rows are packed separately. */
  packing?: { maxLength: number; separateAbove?: number | undefined } | undefined;
}

/** Builds a batch of examples, one per row. */
export function buildBatch(examples: readonly Example[], padTokenId: number): Batch {
  const lengths = examples.map((example) => example.ids.length);
  const length = Math.max(...lengths);
  const ids = new Int32Array(examples.length * length).fill(padTokenId);
  const width = Math.max(...examples.map((example) => example.labels.length));
  const labels = new Int32Array(examples.length * width).fill(IGNORED);
  for (const [row, example] of examples.entries()) {
    ids.set(example.ids, row * length);
    labels.set(example.labels, row * width);
  }
  const audio = examples.flatMap((example) => example.audio ?? []);
  return {
    ...(audio.length > 0 && { audio }),
    ids,
    labels,
    shape: [examples.length, length],
    lengths,
    tokens: lengths.reduce((sum, n) => sum + n, 0),
    trained: examples.reduce((sum, example) => sum + example.trained, 0),
  };
}

/** Builds a batch of sequences with one or several packed rows each. */
export function buildPackedBatch(sequences: readonly (readonly Example[])[], padTokenId: number): Batch {
  const batch = buildBatch(sequences.map(joinExamples), padTokenId);
  if (sequences.every((rows) => rows.length === 1)) return batch;
  const T = batch.shape[1];
  const positions = new Int32Array(batch.ids.length);
  for (const [b, rows] of sequences.entries()) {
    let offset = b * T;
    for (const { ids } of rows) for (let t = 0; t < ids.length; t++) positions[offset++] = t;
    for (let t = 0; offset < (b + 1) * T; t++) positions[offset++] = t;
  }
  return { ...batch, positions };
}

/** Returns the attention mask [B, T]: 1 for tokens, 0 for padding. */
export function buildAttentionMask({ shape: [rows, length], lengths }: Batch): Int32Array {
  const mask = new Int32Array(rows * length);
  for (const [row, tokens] of lengths.entries()) mask.fill(1, row * length, row * length + tokens);
  return mask;
}

/** Yields batches in the data's order, for evaluation. */
export function* listBatchesInOrder(
  examples: Examples,
  batchSize: number,
  padTokenId: number,
): Generator<Batch> {
  for (let start = 0; start < examples.length; start += batchSize) {
    const count = Math.min(batchSize, examples.length - start);
    yield buildBatch(
      Array.from({ length: count }, (_, i) => examples.at(start + i) as Example),
      padTokenId,
    );
  }
}

/**
 * Chooses the rows of each optimizer step, as a function of the examples, the options and the step's number, so that a
 * resumed run trains on the same rows as an uninterrupted one.
 *
 * Every epoch is shuffled differently. An optimizer step takes `batchSize × gradientAccumulation` rows (or packed
 * sequences) of one epoch; an epoch's last step takes the rest. Within a step, rows are sorted by length before
 * batching. The step's loss is a mean over all its trained tokens, so this order changes only the padding.
 */
export class BatchPlan {
  readonly stepsPerEpoch: number;
  readonly steps: number;
  readonly #examples: Examples;
  readonly #options: PlanOptions;
  readonly #fingerprint: string;
  readonly #packing: Packing | undefined;
  #order: { epoch: number; rows: Uint32Array } | undefined;

  constructor(examples: Examples, options: PlanOptions) {
    if (examples.length === 0) throw new LowrankError("ERR_NO_TRAINED_TOKENS", "there are no examples");
    this.#examples = examples;
    this.#options = options;
    this.#fingerprint = computeFingerprint(examples);
    const { packing, seed } = options;
    this.#packing = packing && new Packing(listLengths(examples), { ...packing, seed });
    this.stepsPerEpoch = Math.ceil(this.#length / this.#rowsPerStep);
    this.steps = options.steps ?? Math.max(1, Math.ceil(this.stepsPerEpoch * (options.epochs ?? 1)));
  }

  /** The number of packed sequences; undefined without packing. */
  get sequences(): number | undefined {
    return this.#packing?.length;
  }

  /** Rows or sequences per epoch. */
  get #length(): number {
    return this.#packing?.length ?? this.#examples.length;
  }

  /** Rows or sequences per step. */
  get #rowsPerStep(): number {
    return this.#options.batchSize * this.#options.gradientAccumulation;
  }

  /** Returns the micro-batches of optimizer step `step`, counted from 0. */
  listBatchesAt(step: number): StepBatches {
    const divided = this.divide(step, (rows) => Array.from({ length: rows }, () => 0));
    return { ...divided, batches: divided.batches.flat() };
  }

  /**
   * Returns the micro-batches of a step divided among devices: `deal` returns each row's device for a number of rows. A
   * device's batches have at most the plan's batch size.
   */
  divide(step: number, deal: (rows: number) => readonly number[]): DividedStep {
    const rows = this.divideRows(step, deal);
    const read: RowReader = (row) => this.#examples.at(row) as Example;
    return {
      ...rows,
      batches: rows.batches.map((deviceBatches) => deviceBatches.map((batch) => this.build(batch, read))),
    };
  }

  /** Returns the rows of a step divided among devices, as `divide`, without reading them. */
  divideRows(step: number, deal: (rows: number) => readonly number[]): DividedRows {
    const { batchSize } = this.#options;
    const sequences = this.#listSequences(step);
    const devices = deal(sequences.length);
    const all = sequences.flat();
    return {
      epoch: Math.floor(step / this.stepsPerEpoch),
      batches: Array.from({ length: Math.max(...devices) + 1 }, (_, device) => {
        const deviceSequences = sequences.filter((_, row) => devices[row] === device);
        const count = Math.ceil(deviceSequences.length / batchSize);
        return Array.from({ length: count }, (_, i) =>
          deviceSequences.slice(i * batchSize, (i + 1) * batchSize),
        );
      }),
      tokens: all.reduce((sum, row) => sum + readLength(this.#examples, row), 0),
      trained: all.reduce((sum, row) => sum + readTrained(this.#examples, row), 0),
    };
  }

  /** Builds a micro-batch of sequences. */
  build(sequences: readonly (readonly number[])[], read: RowReader): Batch {
    return buildPackedBatch(
      sequences.map((rows) => rows.map(read)),
      this.#options.padTokenId,
    );
  }

  /** Returns a reader of the rows that this process asks for, as `gatherRows`. */
  gather(wanted: readonly (readonly number[])[]): Promise<RowReader> {
    return gatherRows(this.#examples, wanted);
  }

  /** Returns the rows of optimizer step `step` without packing. */
  listRowsAt(step: number): Batch[] {
    const { batchSize, padTokenId } = this.#options;
    const rows = this.#listSequences(step).flat();
    const examples = rows.map((row) => this.#examples.at(row) as Example);
    return [...listBatchesInOrder(examples, batchSize, padTokenId)];
  }

  /** Returns the sequences of a step as the numbers of their rows, shortest first where the batch size exceeds 1. */
  #listSequences(step: number): number[][] {
    const epoch = Math.floor(step / this.stepsPerEpoch);
    const first = (step % this.stepsPerEpoch) * this.#rowsPerStep;
    const places = this.#orderEpoch(epoch).subarray(first, first + this.#rowsPerStep);
    const sequences = Array.from(places, (place) => Array.from(this.#packing?.at(place) ?? [place]));
    const length = (rows: readonly number[]): number =>
      rows.reduce((sum, row) => sum + readLength(this.#examples, row), 0);
    return this.#options.batchSize > 1 ? sequences.sort((a, b) => length(a) - length(b)) : sequences;
  }

  /** Returns the cursor after `step` optimizer steps. */
  createCursor(step: number): Cursor {
    const { seed, batchSize, gradientAccumulation } = this.#options;
    const examples = this.#examples.length;
    const { sequences } = this;
    return {
      step,
      seed,
      batchSize,
      gradientAccumulation,
      examples,
      data: this.#fingerprint,
      ...(sequences !== undefined && { sequences }),
    };
  }

  /**
   * Returns the step to resume from.
   *
   * Throws `ERR_OPTION` when the cursor was saved with other data or options.
   */
  resume(cursor: Cursor): number {
    const current = this.createCursor(cursor.step);
    for (const key of [
      "seed",
      "batchSize",
      "gradientAccumulation",
      "examples",
      "data",
      "sequences",
    ] as const) {
      if (current[key] === cursor[key]) continue;
      if (key === "sequences") throw new LowrankError("ERR_OPTION", this.#createPackingError(cursor));
      const what = key === "examples" || key === "data" ? "the training data" : key;
      const detail = key === "data" ? "" : `: ${cursor[key]} then, ${current[key]} now`;
      throw new LowrankError("ERR_OPTION", `resume: ${what} differs from the interrupted run's${detail}`);
    }
    return cursor.step;
  }

  #createPackingError({ sequences: then }: Cursor): string {
    const formatCount = (count: number | undefined): string => (count === undefined ? "none" : `${count}`);
    const what = "the sequences that rows share differ from the interrupted run's";
    return `resume: ${what}: ${formatCount(then)} then, ${formatCount(this.sequences)} now`;
  }

  #orderEpoch(epoch: number): Uint32Array {
    if (this.#order?.epoch !== epoch) {
      this.#order = { epoch, rows: shuffleEpoch(this.#length, this.#options.seed, epoch) };
    }
    return this.#order.rows;
  }
}
