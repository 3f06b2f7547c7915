/** A model's forward with one adapter per row of its batch. */
import { tensor } from "../create.js";
import { LowrankError } from "../errors.js";
import type { Module } from "../nn/module.js";
import type { Tensor } from "../tensor.js";
import { adapterOf, adapters, adaptersOf } from "./registry.js";
import { withAdapterPerRow, type AdapterPerRow } from "./rows.js";

/**
 * Runs `forward` of `model` over a batch, row b of which counts the adapter `names[b]` alone, active
 * or not, merged or not; null is the base. Without names it runs as the model stands.
 *
 * Throws `ERR_UNKNOWN_ADAPTER`, listing those loaded; `ERR_SHAPE_MISMATCH` where there is not one
 * name a row; `ERR_OPTION` for an adapter with modules or biases of its own, which are not by row.
 */
export function perRow<T>(
  model: Module,
  batch: number,
  names: AdapterPerRow | undefined,
  forward: () => T,
): T {
  if (names === undefined) return forward();
  if (names.length !== batch) {
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `adapterPerRow: there are ${names.length} names for ${batch} rows`,
    );
  }
  for (const name of names) if (name !== null) adapterOf(model, name);
  for (const name of adapters(model)) {
    const { modules, biases } = adaptersOf(model).get(name) ?? {};
    if ((modules?.size ?? 0) + (biases?.size ?? 0) > 0) {
      throw new LowrankError(
        "ERR_OPTION",
        `adapterPerRow: the adapter "${name}" has modules or biases of its own, which cannot differ by row`,
      );
    }
  }
  return withAdapterPerRow(names, forward);
}

/**
 * The loss of rows of several adapters: the mean over each one's own tokens that count, added up.
 * `losses` and `counted` are [B, T]; a token that does not count has a loss of 0.
 */
export function lossPerAdapter(losses: Tensor, counted: Tensor, names: AdapterPerRow): Tensor {
  const [byRow, countByRow] = [losses.sum(1), counted.sum(1)];
  const means = [...new Set(names)].map((name) => {
    const weights = names.map((own) => (own === name ? 1 : 0));
    const pick = tensor(weights, { device: losses.device });
    return byRow.mul(pick).sum().div(countByRow.mul(pick).sum());
  });
  const [first, ...rest] = means as [Tensor, ...Tensor[]];
  return rest.reduce((sum, mean) => sum.add(mean), first);
}
