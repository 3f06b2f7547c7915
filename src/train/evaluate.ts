import { type Batch, batchesInOrder } from "../data/batches.js";
import type { Examples } from "../data/store.js";
import { LowrankError, throwIfAborted } from "../errors.js";
import type { Module } from "../nn/module.js";
import { withRandom } from "../random.js";
import { noGrad, scope } from "../scope.js";
import { Confusion } from "./confusion.js";
import type { Measured, Objective } from "./objective.js";

/** The loss over held-out data, and what follows from it. */
export interface Evaluation {
  /** The mean over all tokens that count, whatever row they are in; of a classifier over the rows. */
  loss: number;
  /** e to the power of the loss. */
  perplexity: number;
  /** Tokens, or rows. */
  tokens: number;
  /** Values that the loss function of a `Trainer` returned, by name: means over the batches. */
  metrics?: Readonly<Record<string, number>> | undefined;
  /** What a classifier told right; not of a language model. */
  classes?: ClassScores | undefined;
}

/** What a classifier told right. */
export interface ClassScores {
  /** The share of rows told right, from 0 to 1. */
  accuracy: number;
  /** The mean of the classes' F1. */
  macroF1: number;
  /** Names of the classes, in the order of `confusion`. */
  labels: readonly string[];
  /** Rows by their class, and by the one they were taken for. */
  confusion: number[][];
  /** Names of the classes that no row is of: the figures say nothing about them. */
  withoutRows: readonly string[];
}

/**
 * The loss of a model over examples, without dropout and without gradients. `between` is awaited before each batch.
 *
 * Errors: `ERR_NOT_FINITE` where the loss is no number, as from weights that overflow their storage; the signal's reason.
 */
export async function evaluate(
  model: Module,
  objective: Objective,
  examples: Examples,
  {
    batchSize,
    signal,
    between,
  }: {
    batchSize: number;
    signal?: AbortSignal | undefined;
    between?: (() => Promise<void>) | undefined;
  },
): Promise<Evaluation> {
  const { labels, tokenisation } = objective;
  const confusion = labels === undefined ? undefined : new Confusion(labels);
  const training = model.training;
  model.eval();
  let sum = 0;
  let tokens = 0;
  try {
    for (const batch of batchesInOrder(examples, batchSize, tokenisation.padTokenId)) {
      await between?.();
      throwIfAborted(signal);
      const measured = noGrad(() => scope(() => objective.measure(batch)));
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
    model.train(training);
  }
  const loss = sum / tokens;
  if (!Number.isFinite(loss)) {
    const what = `the loss over ${examples.length} rows is ${loss}`;
    const why = "the model or its adapter has weights that are no numbers, or overflows; try dtype f32";
    throw new LowrankError("ERR_NOT_FINITE", `evaluate: ${what}: ${why}`);
  }
  const found = { loss, perplexity: Math.exp(loss), tokens };
  return confusion === undefined ? found : { ...found, classes: confusion.scores };
}

/**
 * The mean loss of a training batch, as a training step has it but without gradients; NaN or infinite for weights that
 * have diverged. In training mode, since only there blocks are checkpointed, so that this holds no more than a step.
 */
export async function lossOf(objective: Objective, batch: Batch): Promise<number> {
  // Dropout draws from a separate stream of random numbers.
  return withRandom(0, async () => {
    const loss = noGrad(() => scope(() => objective.lossSum(batch, 1 / Math.max(batch.trained, 1))));
    try {
      return await loss.item();
    } finally {
      loss.dispose();
    }
  });
}

/** Takes each row for the class with the highest score. */
async function count(confusion: Confusion, { labels }: Batch, { scores }: Measured): Promise<void> {
  const values = await scores?.data();
  if (values === undefined) return;
  const N = confusion.labels.length;
  for (const [row, truth] of labels.entries()) {
    const own = values.subarray(row * N, (row + 1) * N);
    confusion.add(truth, own.indexOf(Math.max(...own)));
  }
}
