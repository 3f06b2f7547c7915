import { type Batch, listBatchesInOrder } from "../data/batches.js";
import type { Examples } from "../data/store.js";
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

/**
 * Returns the loss of a model over examples, without dropout or gradients. Awaits `between` before each batch.
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
  }: {
    batchSize: number;
    signal?: AbortSignal | undefined;
    between?: (() => Promise<void>) | undefined;
    /** Measures a batch in evaluation mode; by default by `objective`, with the model in that mode meanwhile. */
    measure?: ((batch: Batch) => Promise<Measured>) | undefined;
  },
): Promise<Evaluation> {
  const { labels, tokenisation } = objective;
  const confusion = labels === undefined ? undefined : new Confusion(labels);
  const training = model.training;
  if (measure === undefined) model.eval();
  let sum = 0;
  let tokens = 0;
  try {
    for (const batch of listBatchesInOrder(examples, batchSize, tokenisation.padTokenId)) {
      await between?.();
      throwIfAborted(signal);
      const measured =
        measure === undefined ? noGrad(() => scope(() => objective.measure(batch))) : await measure(batch);
      try {
        sum += await measured.loss.item();
        if (confusion !== undefined) await count(confusion, batch, measured);
      } finally {
        measured.loss.dispose();
        measured.scores?.dispose();
      }
      tokens += batch.trained;
    }
  } finally {
    if (measure === undefined) model.train(training);
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
    const loss = noGrad(() => scope(() => objective.lossSum(batch, 1 / Math.max(batch.trained, 1))));
    try {
      return await loss.item();
    } finally {
      loss.dispose();
    }
  });
}

/** Counts each row under the class with its highest score. */
async function count(confusion: Confusion, { labels }: Batch, { scores }: Measured): Promise<void> {
  const values = await scores?.data();
  if (values === undefined) return;
  const N = confusion.labels.length;
  for (const [row, truth] of labels.entries()) {
    const own = values.subarray(row * N, (row + 1) * N);
    confusion.add(truth, own.indexOf(Math.max(...own)));
  }
}
