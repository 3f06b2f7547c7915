import { LowrankError } from "../errors.js";
import { epochOrder } from "./shuffle.js";
import { type Example, type Examples, fingerprint, IGNORED } from "./store.js";

/**
 * Rows side by side, padded on the right to the longest. With a causal model no real position sees the padding; an
 * encoder is given the mask.
 */
export interface Batch {
  /** [B, T], row-major. */
  ids: Int32Array;
  /** [B, T]; [B, 1] where a row has one label. */
  labels: Int32Array;
  shape: [rows: number, length: number];
  /** Tokens of each row, padding left out. */
  lengths: number[];
  /** Their sum, and the predictions that are trained on. */
  tokens: number;
  trained: number;
}

/** One optimizer step: its micro-batches and what they hold together, known before the first runs. */
export interface StepBatches {
  epoch: number;
  batches: Batch[];
  tokens: number;
  /** The loss is averaged over these: each micro-batch adds its sum of losses divided by this number. */
  trained: number;
}

/** Where a run stands in its data, as a checkpoint stores it. */
export interface Cursor {
  /** Optimizer steps done. */
  step: number;
  seed: number;
  batchSize: number;
  gradientAccumulation: number;
  examples: number;
  /** A hash of all ids and labels. */
  data: string;
}

export interface PlanOptions {
  batchSize: number;
  gradientAccumulation: number;
  seed: number;
  padTokenId: number;
  /** Optimizer steps in all, over as many epochs as they take; or epochs, which may be a fraction. */
  steps?: number | undefined;
  epochs?: number | undefined;
}

/** Lays examples side by side. */
export function batchOf(examples: readonly Example[], padTokenId: number): Batch {
  const lengths = examples.map((one) => one.ids.length);
  const length = Math.max(...lengths);
  const ids = new Int32Array(examples.length * length).fill(padTokenId);
  const width = Math.max(...examples.map((one) => one.labels.length));
  const labels = new Int32Array(examples.length * width).fill(IGNORED);
  for (const [row, one] of examples.entries()) {
    ids.set(one.ids, row * length);
    labels.set(one.labels, row * width);
  }
  return {
    ids,
    labels,
    shape: [examples.length, length],
    lengths,
    tokens: lengths.reduce((sum, n) => sum + n, 0),
    trained: examples.reduce((sum, one) => sum + one.trained, 0),
  };
}

/** [B, T], 1 where a token is, 0 where padding is. */
export function attentionMask({ shape: [rows, length], lengths }: Batch): Int32Array {
  const mask = new Int32Array(rows * length);
  for (const [row, tokens] of lengths.entries()) mask.fill(1, row * length, row * length + tokens);
  return mask;
}

/** Batches in the data's own order, for evaluation. */
export function* batchesInOrder(examples: Examples, batchSize: number, padTokenId: number): Generator<Batch> {
  for (let at = 0; at < examples.length; at += batchSize) {
    const count = Math.min(batchSize, examples.length - at);
    yield batchOf(
      Array.from({ length: count }, (_, i) => examples.at(at + i) as Example),
      padTokenId,
    );
  }
}

/**
 * Which rows each optimizer step trains on. Everything is a function of the examples, the options and the step's
 * number, so that a run which was interrupted goes on with the rows that it would have had.
 *
 * Every epoch has an order of its own. An optimizer step takes `batchSize × gradientAccumulation` rows of one epoch;
 * an epoch's last step takes what is left. Within a step, rows are sorted by length before they are laid side by
 * side: its loss is a mean over all its trained tokens, so only the padding changes.
 */
export class BatchPlan {
  readonly stepsPerEpoch: number;
  readonly steps: number;
  readonly #examples: Examples;
  readonly #options: PlanOptions;
  readonly #fingerprint: string;
  #order: { epoch: number; rows: Uint32Array } | undefined;

  constructor(examples: Examples, options: PlanOptions) {
    if (examples.length === 0) throw new LowrankError("ERR_NO_TRAINED_TOKENS", "there are no examples");
    this.#examples = examples;
    this.#options = options;
    this.#fingerprint = fingerprint(examples);
    this.stepsPerEpoch = Math.ceil(examples.length / this.#rowsPerStep);
    this.steps = options.steps ?? Math.max(1, Math.ceil(this.stepsPerEpoch * (options.epochs ?? 1)));
  }

  get #rowsPerStep(): number {
    return this.#options.batchSize * this.#options.gradientAccumulation;
  }

  /** The micro-batches of optimizer step `step`, counted from 0. */
  at(step: number): StepBatches {
    const { batchSize, padTokenId } = this.#options;
    const epoch = Math.floor(step / this.stepsPerEpoch);
    const first = (step % this.stepsPerEpoch) * this.#rowsPerStep;
    const rows = this.#orderOf(epoch).subarray(first, first + this.#rowsPerStep);
    const examples = Array.from(rows, (row) => this.#examples.at(row)).filter((one) => one !== undefined);
    if (batchSize > 1) examples.sort((a, b) => a.ids.length - b.ids.length);
    const batches = [...batchesInOrder(examples, batchSize, padTokenId)];
    return {
      epoch,
      batches,
      tokens: batches.reduce((sum, batch) => sum + batch.tokens, 0),
      trained: batches.reduce((sum, batch) => sum + batch.trained, 0),
    };
  }

  /** What to store after `step` optimizer steps. */
  cursor(step: number): Cursor {
    const { seed, batchSize, gradientAccumulation } = this.#options;
    const examples = this.#examples.length;
    return { step, seed, batchSize, gradientAccumulation, examples, data: this.#fingerprint };
  }

  /**
   * The step to go on from.
   *
   * Errors: `ERR_OPTION` when the cursor was saved over other data or with other options.
   */
  resume(cursor: Cursor): number {
    const own = this.cursor(cursor.step);
    for (const key of ["seed", "batchSize", "gradientAccumulation", "examples", "data"] as const) {
      if (own[key] === cursor[key]) continue;
      const what = key === "examples" || key === "data" ? "the training data" : key;
      const detail = key === "data" ? "" : `: ${cursor[key]} then, ${own[key]} now`;
      throw new LowrankError("ERR_OPTION", `resume: ${what} differs from the interrupted run's${detail}`);
    }
    return cursor.step;
  }

  #orderOf(epoch: number): Uint32Array {
    if (this.#order?.epoch !== epoch) {
      this.#order = { epoch, rows: epochOrder(this.#examples.length, this.#options.seed, epoch) };
    }
    return this.#order.rows;
  }
}
