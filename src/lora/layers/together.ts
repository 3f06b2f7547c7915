/** Layers that read one input. */
import type { Module } from "../../nn/module.js";
import { session } from "../../native.js";
import { madeAll, type Tensor } from "../../tensor.js";
import { Linear } from "./linear.js";

type Layer = Module & { forward(x: Tensor): Tensor };

/**
 * What each layer gives of x. The products x·Aᵀ of those that have one low-rank path, over all rows and outputs and
 * with nothing dropped, are made together; the others run by themselves. Values and gradients are those of each
 * layer's own forward.
 */
export function together(layers: readonly Layer[], x: Tensor): Tensor[] {
  const shares = layers.map((layer) =>
    layer instanceof Linear ? layer.plainShare(x.size / layer.inFeatures) : undefined,
  );
  const factors = shares.flatMap((share) => (share === undefined ? [] : [share.adapter.loraA.id]));
  if (factors.length < 2) return layers.map((layer) => layer.forward(x));
  const projected = madeAll(() => session().projections(x.id, factors))[Symbol.iterator]();
  return layers.map((layer, i) => {
    const share = shares[i];
    if (share === undefined) return layer.forward(x);
    return (layer as Linear).withProjection(x, share, projected.next().value as Tensor);
  });
}
