/**
 * DoRA: magnitude and direction of a weight trained apart (Liu et al. 2024, sections 4.1 and 4.3).
 *
 * W' = m / ‖W + s·B·A‖ · (W + s·B·A), by output; the norm is taken as a constant in backward.
 */
import { noGrad, scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import type { Adapter } from "./adapter.js";
import type { AnyLoRALayer } from "./layer.js";

/** The norms of W + s·B·A by output, in the shape of a magnitude. */
export function magnitudeOf(layer: AnyLoRALayer, adapter: Adapter): Tensor {
  return noGrad(() =>
    scope(() => {
      const weight = layer.baseWeight.to("f32").add(layer.product(adapter).mul(adapter.scaling));
      const squares = weight.mul(weight);
      const flat =
        layer.outputDim === 0 ? squares.reshape(weight.shape[0] as number, -1).sum(1) : squares.sum(0);
      return flat.sqrt().reshape(layer.shapeOnDisk("magnitude", adapter.r));
    }),
  );
}

/** `weight` times magnitude over norm, by output. */
export function rescaled(layer: AnyLoRALayer, adapter: Adapter, weight: Tensor): Tensor {
  const shape = weight.shape.map((size, d) => (d === layer.outputDim ? size : 1));
  const factor = (adapter.magnitude as Tensor).div(layer.magnitudeOf(adapter));
  return weight.mul(factor.reshape(shape));
}
