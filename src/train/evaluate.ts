import { type Batch, buildBatch } from "../data/batches.js";
import { countTrained, type Examples, gatherRows, type RowReader } from "../data/store.js";
import { LowrankError, throwIfAborted } from "../errors.js";
import type { Module } from "../nn/module.js";
import { runWithRandom } from "../tensor/random.js";
import { noGrad, scope } from "../tensor/scope.js";
import { Confusion } from "./confusion.js";
import type { Measured, Objective } from "./objective.js";

/** The loss over held-out data, and figures computed from it. */
export interface Evaluation {
  /** The mean over all trained tokens, whichever row they are in; for a classifier, over the rows. */
  loss: number;
  /** e to the power of the loss. */
  perplexity: number;
  /** The number of trained tokens; for a classifier, of rows. */
  tokens: number;
  /** Values that the loss function of a `Trainer` returned, by name: means over the batches. */
  metrics?: Readonly<Record<string, number>> | undefined;
  /** The scores of a classifier; absent for a language model. */
  classes?: ClassScores | undefined;
}

/** The scores of a classifier. */
export interface ClassScores {
  /** The share of correctly classified rows, from 0 to 1. */
  accuracy: number;
  /** The mean F1 of the classes. */
  macroF1: number;
  /** The names of the classes, in the order of `confusion`. */
  labels: readonly string[];
  /** Row counts, indexed by true class and then by predicted class. */
  confusion: number[][];
  /** The names of classes without rows in the data; the scores say nothing about them. */
  withoutRows: readonly string[];
}

/** The processes that share an evaluation; each measures every `size`-th batch. */
export interface EvaluationShare {
  readonly rank: number;
  readonly size: number;
  /** Returns the values of all ranks, in rank order. */
  gatherAll<T>(value: T): Promise<T[]>;
  /** Aborted when this rank was asked to stop. */
  readonly asked: AbortSignal;
  /** Aborted when the ranks have met after one of them was asked to stop. */
  readonly stopping: AbortSignal;
}

/** The figures of one batch: its sum of losses, and the true and the predicted class of each row. */
type MeasuredBatch = [loss: number, classes: [truth: number, predicted: number][]];

/**
 * Returns the loss of a model over examples, without dropout or gradients. Awaits `between` before each batch. With
 * `ranks`, each rank measures a part of the batches, and all return the same.
 *
 * Errors: `ERR_NOT_FINITE` if the loss is NaN or infinite, for example because weights overflow their storage type; the
 * signal's reason.
 */
export async function evaluate(
  model: Module,
  objective: Objective,
  examples: Examples,
  {
    batchSize,
    signal,
    between,
    measure,
    ranks,
  }: {
    batchSize: number;
    signal?: AbortSignal | undefined;
    between?: (() => Promise<void>) | undefined;
    /** Measures a batch in evaluation mode; by default by `objective`, with the model in that mode meanwhile. */
    measure?: ((batch: Batch) => Promise<Measured>) | undefined;
    ranks?: EvaluationShare | undefined;
  },
): Promise<Evaluation> {
  const { labels, tokenisation } = objective;
  const confusion = labels === undefined ? undefined : new Confusion(labels);
  const training = model.training;
  if (measure === undefined) model.eval();
  const measured: MeasuredBatch[] = [];
  const tokens = countTrained(examples);
  const batches = Math.ceil(examples.length / batchSize);
  const { rank = 0, size = 1 } = ranks ?? {};
  const listRows = (batch: number): number[] => {
    const first = batch * batchSize;
    return Array.from({ length: Math.min(batchSize, examples.length - first) }, (_, row) => first + row);
  };
  const listTurn = (turn: number): number[] =>
    Array.from({ length: Math.min(size, batches - turn) }, (_, i) => turn + i);
  const gather = (turn: number): Promise<RowReader> => {
    const read = gatherRows(examples, listTurn(turn).map(listRows));
    // Awaited after the batches before it; until then a rejection must not count as unhandled.
    read.catch(() => {});
    return read;
  };
  try {
    let ahead = gather(0);
    for (let turn = 0; turn < batches; turn += size) {
      const read = await ahead;
      if (turn + size < batches) ahead = gather(turn + size);
      const batch = listTurn(turn)[rank];
      // The other ranks learn of a stop when they meet.
      if (batch === undefined || ranks?.asked.aborted === true) continue;
      await between?.();
      throwIfAborted(signal);
      const rows = buildBatch(listRows(batch).map(read), tokenisation.padTokenId);
      measured.push(await readMeasured(objective, rows, measure));
    }
  } finally {
    if (measure === undefined) model.train(training);
  }
  const parts = ranks === undefined ? [measured] : await ranks.gatherAll(measured);
  throwIfAborted(ranks?.stopping);
  let sum = 0;
  for (let batch = 0; batch < batches; batch++) {
    const measured = parts[batch % size] as MeasuredBatch[];
    const [loss, classes] = measured[Math.floor(batch / size)] as MeasuredBatch;
    sum += loss;
    for (const [truth, predicted] of classes) confusion?.add(truth, predicted);
  }
  const loss = sum / tokens;
  if (!Number.isFinite(loss)) {
    const what = `the loss over ${examples.length} rows is ${loss}`;
    const why = "weights of the model or its adapter are not finite, or it overflows; try dtype f32";
    throw new LowrankError("ERR_NOT_FINITE", `evaluate: ${what}: ${why}`);
  }
  const found = { loss, perplexity: Math.exp(loss), tokens };
  return confusion === undefined ? found : { ...found, classes: confusion.scores };
}

/**
 * Returns the mean loss of a training batch, computed without gradients; NaN or infinite for diverged weights. It runs
 * in training mode because blocks are checkpointed only there, so that it needs no more memory than a training step.
 */
export async function computeLoss(objective: Objective, batch: Batch): Promise<number> {
  // Dropout draws from a separate stream of random numbers.
  return runWithRandom(0, async () => {
    const loss = noGrad(() => scope(() => objective.computeLossSum(batch, 1 / Math.max(batch.trained, 1))));
    try {
      return await loss.item();
    } finally {
      loss.dispose();
    }
  });
}

/** Measures a batch and reads its figures. */
async function readMeasured(
  objective: Objective,
  batch: Batch,
  measure: ((batch: Batch) => Promise<Measured>) | undefined,
): Promise<MeasuredBatch> {
  const measured =
    measure === undefined ? noGrad(() => scope(() => objective.measure(batch))) : await measure(batch);
  try {
    return [await measured.loss.item(), await listClasses(batch, measured, objective.labels?.length ?? 0)];
  } finally {
    measured.loss.dispose();
    measured.scores?.dispose();
  }
}

/** Returns the true class of each row, and the class with its highest score; none without scores. */
async function listClasses(
  { labels }: Batch,
  { scores }: Measured,
  count: number,
): Promise<MeasuredBatch[1]> {
  const values = count === 0 ? undefined : await scores?.data();
  if (values === undefined) return [];
  return Array.from(labels, (truth, row) => {
    const rowValues = values.subarray(row * count, (row + 1) * count);
    return [truth, rowValues.indexOf(Math.max(...rowValues))];
  });
}
