/** The weight of a layer with adapters added to it. */
import { zeros } from "../../tensor/create.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { AnyLoRALayer } from "./any-layer.js";
import { computeRescaling } from "./dora.js";
import type { Share } from "./shares.js";

/** Σ scaling · B·A, in the weight's shape. */
export function computeDelta(layer: AnyLoRALayer, shares: readonly Share[]): Tensor {
  const [first, ...rest] = shares.map(({ adapter, scaling }) => layer.computeProduct(adapter).mul(scaling));
  if (first === undefined) return zeros(layer.baseWeight.shape, { device: layer.baseWeight.device });
  return rest.reduce((sum, tensor) => sum.add(tensor), first);
}

/** Returns W + Σ scaling · B·A in f32. An adapter with a magnitude (DoRA) also rescales the sum accumulated before it. */
export function computeAdaptedWeight(layer: AnyLoRALayer, shares: readonly Share[]): Tensor {
  const base = layer.baseWeight.to("f32");
  if (!shares.some(({ adapter }) => adapter.magnitude)) return base.add(computeDelta(layer, shares));
  return shares.reduce((weight, { adapter, scaling }) => {
    const sum = weight.add(layer.computeProduct(adapter).mul(scaling));
    if (adapter.magnitude === undefined) return sum;
    const along = sum.shape.map((size, d) => (d === layer.outputDim ? size : 1));
    return sum.mul(computeRescaling(layer, adapter, scaling).reshape(along));
  }, base);
}
