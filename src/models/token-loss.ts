/** The loss of a model's head over tokens, optionally with one adapter per row. */
import { computeLossPerAdapter, runPerRow } from "../lora/adapter/per-row.js";
import { findRuns, type AdapterPerRow } from "../lora/layers/rows.js";
import type { Linear } from "../nn/linear.js";
import type { Module } from "../nn/module.js";
import type { Tensor } from "../tensor/tensor.js";
import {
  countTargets,
  readDenseHead,
  computeHeadLoss,
  sliceTargets,
  type HeadLossOptions,
  type Targets,
} from "./head-loss.js";

/**
 * Returns the cross-entropy of `head` of `model` over hidden [B, T, C] against targets [B · T]: a scalar, or [B, T]
 * without a reduction. With one adapter per row, the mean is the sum of each adapter's mean over its rows.
 */
export function computeTokenLoss(
  model: Module,
  head: Linear,
  hidden: Tensor,
  targets: Targets,
  options: HeadLossOptions & { adapterPerRow?: AdapterPerRow | undefined },
): Tensor {
  const [B, T] = hidden.shape as [number, number, number];
  const { adapterPerRow: names } = options;
  if (names === undefined) {
    const loss = computeHeadLoss(head, hidden, targets, options);
    return options.reduction === "none" ? loss.reshape(B, T) : loss;
  }
  const apart = { ...options, reduction: "none" } as const;
  // Where no adapter changes the head, one call handles all rows.
  const loss = runPerRow(model, B, names, () =>
    readDenseHead(head, B * T) ? computeHeadLoss(head, hidden, targets, apart) : undefined,
  );
  const byRun = (): Tensor[] =>
    findRuns(names, B).map(({ name, start, count }) => {
      const runTargets = sliceTargets(targets, start * T, (start + count) * T);
      const states = hidden.slice(0, start, start + count);
      return runPerRow(model, 1, [name], () => computeHeadLoss(head, states, runTargets, apart));
    });
  const losses = (loss ?? joinRows(byRun())).reshape(B, T);
  if (options.reduction === "none") return losses;
  if (options.reduction === "sum") return losses.sum();
  return computeLossPerAdapter(losses, countTargets(targets).reshape(B, T), names);
}

function joinRows([first, ...rest]: Tensor[]): Tensor {
  return rest.length === 0 ? (first as Tensor) : (first as Tensor).concat(rest, 0);
}
