/**
 * DoRA: magnitude and direction of a weight trained apart (Liu et al. 2024, sections 4.1 and 4.3).
 *
 * W' = m / ‖W + s·B·A‖ · (W + s·B·A), by output; the norm is taken as a constant in backward.
 * It is never of a sum that exists whole: ‖w + s·b·A‖² = ‖w‖² + 2s·b·(A·w) + s²·b·(A·Aᵀ)·bᵀ, which
 * costs as much as the low-rank path does over `rank` rows. It loses bits only where s·b·A all but
 * cancels w: then the norm itself is next to nothing. ‖w‖² is kept until the weight changes.
 */
import { session } from "../../native.js";
import { keep, noGrad, scope } from "../../scope.js";
import { made, type Tensor } from "../../tensor.js";
import type { Adapter } from "./adapter.js";
import type { AnyLoRALayer } from "./any-layer.js";

/** ‖w‖² of each output of a weight, and which values of the weight it is of. */
export interface SquaredNorms {
  readonly weight: Tensor;
  readonly version: number;
  readonly squares: Tensor;
}

/** The norms of W + scaling · B·A by output, in the shape of a magnitude. No gradient flows into them. */
export function normsOf(layer: AnyLoRALayer, adapter: Adapter, scaling: number): Tensor {
  return noGrad(() =>
    scope(() => {
      const { loraA, loraB } = layer.factors(adapter);
      const { baseWeight: weight, outputDim } = layer;
      const fanInFanOut = outputDim === 1;
      const flat = fanInFanOut ? weight : weight.reshape(weight.shape[0] as number, -1);
      // [r, out] and [r, r]
      const projected = made(() => session().linear(loraA.id, flat.id, undefined, fanInFanOut));
      const cross = loraB.mul(projected.transpose()).sum(1);
      const own = loraB
        .matmul(loraA.matmul(loraA, { transB: true }))
        .mul(loraB)
        .sum(1);
      const squares = squaredNorms(layer, flat)
        .add(cross.mul(2 * scaling))
        .add(own.mul(scaling * scaling));
      return squares.clamp(0, Infinity).sqrt().reshape(layer.shapeOnDisk("magnitude", adapter.r));
    }),
  );
}

function squaredNorms(layer: AnyLoRALayer, flat: Tensor): Tensor {
  const { baseWeight: weight, squaredNorms: known } = layer;
  const version = session().version(weight.id);
  if (known?.weight === weight && known.version === version) return known.squares;
  const wide = flat.to("f32");
  const squares = wide.mul(wide).sum(1 - layer.outputDim);
  keep(squares);
  known?.squares.dispose();
  layer.squaredNorms = { weight, version, squares };
  return squares;
}

/** m / ‖W + scaling · B·A‖, in the magnitude's shape; a gradient flows into m alone. */
export function rescaling(layer: AnyLoRALayer, adapter: Adapter, scaling: number): Tensor {
  return (adapter.magnitude as Tensor).div(normsOf(layer, adapter, scaling));
}
