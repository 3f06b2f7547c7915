/** One forward and backward pass over the rows of several adapters, side by side in one batch. */
import type { Batch } from "../../data/batches.js";
import { IGNORED } from "../../data/store.js";
import { type AdapterGenerators, runWithGenerators } from "../../lora/layers/rows.js";
import type { RandomState } from "../../tensor/random.js";
import { tensor } from "../../tensor/create.js";
import { noGrad, runEvaluating, scope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Measured, Objective } from "../objective.js";

/** The rows of one adapter. */
export interface AdapterRows {
  /** The adapter's name in the model. */
  name: string;
  batch: Batch;
}

/** The rows of one adapter in a training step. */
export interface TrainedRows extends AdapterRows {
  /** The factor of the sum of the losses. */
  scale: number;
  /** The generator of the adapter's dropout masks. */
  generator: RandomState;
}

/** Returns a batch with the rows of all batches, padded to the longest. */
export function mergeBatches(batches: readonly Batch[], padTokenId: number): Batch {
  const [first, ...rest] = batches;
  if (first !== undefined && rest.length === 0) return first;
  const rows = sum(batches, ({ shape }) => shape[0]);
  const length = Math.max(...batches.map(({ shape }) => shape[1]));
  const widths = batches.map(({ labels, shape }) => labels.length / shape[0]);
  const width = Math.max(...widths);
  const ids = new Int32Array(rows * length).fill(padTokenId);
  const labels = new Int32Array(rows * width).fill(IGNORED);
  let row = 0;
  for (const [i, { shape, ...batch }] of batches.entries()) {
    const [B, T] = shape;
    const W = widths[i] as number;
    for (let b = 0; b < B; b++, row++) {
      ids.set(batch.ids.subarray(b * T, (b + 1) * T), row * length);
      labels.set(batch.labels.subarray(b * W, (b + 1) * W), row * width);
    }
  }
  const audio = batches.flatMap((batch) => batch.audio ?? []);
  return {
    ...(audio.length > 0 && { audio }),
    ids,
    labels,
    shape: [rows, length],
    lengths: batches.flatMap(({ lengths }) => lengths),
    tokens: sum(batches, ({ tokens }) => tokens),
    trained: sum(batches, ({ trained }) => trained),
  };
}

/**
 * Records forward and backward over the rows of all parts. Returns the loss of each part: the sum over its trained tokens
 * or rows, times its scale. Each loss is a tensor of shape [].
 */
export function recordJointly(objective: Objective, parts: readonly TrainedRows[]): Tensor[] {
  const generators: AdapterGenerators = new Map(parts.map(({ name, generator }) => [name, generator]));
  const scales = parts.flatMap(({ batch, scale }) => repeat(scale, batch.shape[0]));
  return scope(() => {
    const { loss } = runWithGenerators(generators, () => measureTogether(objective, parts, "training"));
    const scaled = loss.mul(tensor(Float32Array.from(scales), { device: loss.device }));
    scaled.sum().backward();
    return noGrad(() => divideRows(scaled.detach(), parts).map((rows) => rows.sum()));
  });
}

/** Measures the rows of all parts in evaluation mode, without gradients. */
export function measureJointly(objective: Objective, parts: readonly AdapterRows[]): Measured[] {
  return noGrad(() =>
    runEvaluating(() =>
      scope(() => {
        const { loss, scores } = measureTogether(objective, parts, "evaluation");
        const losses = divideRows(loss, parts).map((rows) => rows.sum());
        const all = scores && divideRows(scores, parts);
        return losses.map((partLoss, i) => ({
          loss: partLoss,
          ...(all !== undefined && { scores: all[i] as Tensor }),
        }));
      }),
    ),
  );
}

function measureTogether(
  objective: Objective,
  parts: readonly AdapterRows[],
  purpose: "training" | "evaluation",
): Measured {
  const batch = mergeBatches(
    parts.map((part) => part.batch),
    objective.tokenisation.padTokenId,
  );
  const names = parts.flatMap((part) => repeat(part.name, part.batch.shape[0]));
  return objective.measureRows(batch, names, purpose);
}

/** Divides the first dimension among the parts. */
function divideRows(values: Tensor, parts: readonly AdapterRows[]): Tensor[] {
  let start = 0;
  return parts.map(({ batch }) => {
    const from = start;
    start += batch.shape[0];
    return values.slice(0, from, start);
  });
}

function repeat<T>(value: T, count: number): T[] {
  return Array.from({ length: count }, () => value);
}

function sum<T>(values: readonly T[], read: (value: T) => number): number {
  return values.reduce((total, value) => total + read(value), 0);
}
