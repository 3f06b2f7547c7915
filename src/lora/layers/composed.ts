/** Computes forward from separate base and low-rank products, where no single operation can. */
import { isTraining } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Adapter } from "./adapter.js";
import { computeRescaling } from "./dora.js";
import type { AnyLoRALayer } from "./any-layer.js";
import { computeBias, type Share } from "./shares.js";

/** The products of a layer, for an input `x`. */
export interface Products {
  /** The product with the base weight, plus `bias`. */
  base(x: Tensor, bias: Tensor | null): Tensor;
  /** scaling · B·A·x. */
  lowRank(x: Tensor, adapter: Adapter, scaling: number): Tensor;
  /** base(x, null) + lowRank(x) as one operation, if the layer has one. */
  sum?(x: Tensor, adapter: Adapter, scaling: number): Tensor;
}

/**
 * Returns base(x) + Σ scaling · B·A·drop(x), adding one adapter after another. An adapter with a magnitude also rescales
 * the terms accumulated before it, except the bias: y ← c·(y + s·B·A·x) with c = m / ‖W + s·B·A‖. With dropout it
 * rescales the base product of the dropped input instead: y ← y + (c − 1)·W·drop(x) + c·s·B·A·drop(x).
 * Source: PEFT's DoRA variants.
 */
export function composeForward(
  layer: AnyLoRALayer,
  x: Tensor,
  shares: readonly Share[],
  products: Products,
): Tensor {
  const { base, lowRank } = products;
  const { baseBias: bias } = layer;
  const hasDropout = ({ loraDropout }: Adapter): boolean => loraDropout > 0 && isTraining(layer);
  const applyDropout = (adapter: Adapter): Tensor =>
    hasDropout(adapter) ? x.dropout(adapter.loraDropout) : x;
  if (!shares.some(({ adapter }) => adapter.magnitude)) {
    const totalBias = computeBias(bias, shares);
    const [first, ...rest] = shares;
    const sum =
      first === undefined || totalBias !== null || hasDropout(first.adapter)
        ? undefined
        : products.sum?.(x, first.adapter, first.scaling);
    return (sum === undefined ? shares : rest).reduce(
      (y, { adapter, scaling }) => y.add(lowRank(applyDropout(adapter), adapter, scaling)),
      sum ?? base(x, totalBias),
    );
  }
  const along = layer.computeBroadcastShape(x.shape);
  const step = (before: Tensor | null, { adapter, scaling }: Share): Tensor => {
    const y = (): Tensor => before ?? base(x, null);
    if (adapter.magnitude === undefined) return y().add(lowRank(applyDropout(adapter), adapter, scaling));
    const c = computeRescaling(layer, adapter, scaling).reshape(along);
    if (!hasDropout(adapter)) {
      const sum = before === null ? products.sum?.(x, adapter, scaling) : undefined;
      return (sum ?? y().add(lowRank(x, adapter, scaling))).mul(c);
    }
    const given = applyDropout(adapter);
    return y()
      .add(base(given, null).mul(c.sub(1)))
      .add(lowRank(given, adapter, scaling).mul(c));
  };
  const y = shares.reduce<Tensor | null>(step, null) as Tensor;
  const totalBias = computeBias(bias, shares);
  return totalBias === null ? y : y.add(totalBias.reshape(along));
}
