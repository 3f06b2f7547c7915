/** The loss of a model's head over tokens, with an adapter a row where it is asked for. */
import { lossPerAdapter, perRow } from "../lora/adapter/per-row.js";
import { runsOf, type AdapterPerRow } from "../lora/layers/rows.js";
import type { Linear } from "../nn/linear.js";
import type { Module } from "../nn/module.js";
import type { Tensor } from "../tensor.js";
import {
  countedTargets,
  denseHead,
  headLoss,
  targetsWithin,
  type HeadLossOptions,
  type Targets,
} from "./head-loss.js";

/**
 * The cross-entropy of `head` of `model` over hidden [B, T, C] against targets [B · T]: a scalar, or [B, T] without a
 * reduction. With an adapter's name a row, the mean is that over each one's own rows, added up.
 */
export function tokenLoss(
  model: Module,
  head: Linear,
  hidden: Tensor,
  targets: Targets,
  options: HeadLossOptions & { adapterPerRow?: AdapterPerRow | undefined },
): Tensor {
  const [B, T] = hidden.shape as [number, number, number];
  const { adapterPerRow: names } = options;
  if (names === undefined) {
    const loss = headLoss(head, hidden, targets, options);
    return options.reduction === "none" ? loss.reshape(B, T) : loss;
  }
  const apart = { ...options, reduction: "none" } as const;
  // A head that every adapter leaves alone takes all rows at once.
  const whole = perRow(model, B, names, () =>
    denseHead(head, B * T) ? headLoss(head, hidden, targets, apart) : undefined,
  );
  const byRun = (): Tensor[] =>
    runsOf(names, B).map(({ name, start, count }) => {
      const own = targetsWithin(targets, start * T, (start + count) * T);
      const states = hidden.slice(0, start, start + count);
      return perRow(model, 1, [name], () => headLoss(head, states, own, apart));
    });
  const losses = (whole ?? joinedRows(byRun())).reshape(B, T);
  if (options.reduction === "none") return losses;
  if (options.reduction === "sum") return losses.sum();
  return lossPerAdapter(losses, countedTargets(targets).reshape(B, T), names);
}

function joinedRows([first, ...rest]: Tensor[]): Tensor {
  return rest.length === 0 ? (first as Tensor) : (first as Tensor).concat(rest, 0);
}
