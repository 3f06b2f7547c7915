/** Losses and metrics of a `Trainer`, for the batches of a step and for an evaluation. */
import { refuse } from "../../arguments/check.js";
import { LowrankError, throwIfAborted } from "../../errors.js";
import type { Module } from "../../nn/module.js";
import { noGrad, scope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Evaluation } from "../evaluate.js";
import type { StepWork } from "../loop.js";
import { Reader, type Batches } from "./data.js";
import { checkLoss, MetricSums, type LossResult } from "./metrics.js";
import type { TrainerOptions } from "./options.js";

/** Returns the work of a step: the mean over its batches by their weights. */
export function makeStepWork<M extends Module, B>(
  batches: B[],
  model: M,
  loss: (model: M, batch: B) => LossResult,
  weight: (batch: B) => number,
): StepWork {
  const weights = batches.map((batch) => readWeight(weight, batch));
  const total = weights.reduce((sum, batchWeight) => sum + batchWeight, 0);
  if (!(total > 0))
    throw new LowrankError("ERR_NO_TRAINED_TOKENS", `the weights of the batches of a step sum to ${total}`);
  const metrics = new MetricSums();
  const losses = batches.map((batch, i) => (): Tensor => {
    const share = weights[i] as number;
    const found = checkLoss(loss(model, batch));
    metrics.add(found.metrics, share);
    return found.loss.mul(share / total);
  });
  return { losses, tokens: total, trained: total, metrics };
}

function readWeight<B>(weight: (batch: B) => number, batch: B): number {
  const value: unknown = weight(batch);
  if (typeof value === "number" && value >= 0 && Number.isFinite(value)) return value;
  return refuse("Trainer", "weight", "a function that returns a number of at least 0", value);
}

/** Returns the mean loss and metrics over `data`, in evaluation mode. Awaits `between` before each batch. */
export async function evaluate<M extends Module, B>(
  { model, loss, release = true }: TrainerOptions<M, B>,
  data: Batches<B>,
  weight: (batch: B) => number,
  signal: AbortSignal,
  between: () => Promise<void>,
): Promise<Evaluation> {
  let [sum, weights, batches] = [0, 0, 0];
  const totals = new Map<string, { sum: number; weight: number }>();
  const reader = new Reader({ name: "evalData", data, epochs: 1, release, signal });
  model.eval();
  try {
    for (let fetched = await reader.next(1); fetched.length > 0; fetched = await reader.next(1)) {
      await between();
      throwIfAborted(signal);
      const [batch] = fetched as [B];
      const share = readWeight(weight, batch);
      const metrics = new MetricSums();
      const value = noGrad(() =>
        scope(() => {
          const found = checkLoss(loss(model, batch));
          metrics.add(found.metrics, share);
          return found.loss;
        }),
      );
      reader.releaseUsed();
      try {
        const reads = Promise.all([value.item(), metrics.read()]);
        const [batchLoss, means = {}] = await reads;
        sum += batchLoss * share;
        for (const [name, mean] of Object.entries(means)) {
          const total = totals.get(name) ?? { sum: 0, weight: 0 };
          if (share > 0) totals.set(name, { sum: total.sum + mean * share, weight: total.weight + share });
        }
      } finally {
        value.dispose();
      }
      weights += share;
      batches++;
      if (Number.isFinite(sum)) continue;
      throw new LowrankError(
        "ERR_NOT_FINITE",
        `Trainer: the loss of batch ${batches} of evalData is not finite`,
      );
    }
  } finally {
    model.train();
    reader.close();
  }
  if (!(weights > 0))
    throw new LowrankError(
      "ERR_NO_TRAINED_TOKENS",
      `the weights of the batches of evalData sum to ${weights}`,
    );
  const mean = sum / weights;
  const metrics = Object.fromEntries([...totals].map(([name, total]) => [name, total.sum / total.weight]));
  return {
    loss: mean,
    perplexity: Math.exp(mean),
    tokens: weights,
    ...(totals.size > 0 && { metrics }),
  };
}
