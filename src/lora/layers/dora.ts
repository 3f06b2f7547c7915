/**
 * DoRA: trains magnitude and direction of a weight separately (Liu et al. 2024, sections 4.1 and 4.3).
 *
 * W' = m / ‖W + s·B·A‖ · (W + s·B·A) per output. Backward treats the norm as a constant. The sum W + s·B·A is never
 * materialised: ‖w + s·b·A‖² = ‖w‖² + 2s·b·(A·w) + s²·b·(A·Aᵀ)·bᵀ, which costs as much as the low-rank path over `rank`
 * rows. The sum cancels only if s·b·A is close to −w, where the norm is close to zero. ‖w‖² is cached until the weight
 * changes.
 */
import { session } from "../../native/binding.js";
import { keep, noGrad, scope } from "../../tensor/scope.js";
import { recordOp, type Tensor } from "../../tensor/tensor.js";
import type { Adapter } from "./adapter.js";
import type { AnyLoRALayer } from "./any-layer.js";
import { release } from "./release.js";

/** ‖w‖² of each output of a weight, valid for one version of the weight. */
export interface SquaredNorms {
  readonly weight: Tensor;
  readonly version: number;
  readonly squares: Tensor;
}

/** Returns ‖W + scaling · B·A‖ per output, in the shape of a magnitude, without gradient. */
export function computeNorms(layer: AnyLoRALayer, adapter: Adapter, scaling: number): Tensor {
  return noGrad(() =>
    scope(() => {
      const { loraA, loraB } = layer.computeFactors(adapter);
      const { baseWeight: weight, outputDim } = layer;
      const fanInFanOut = outputDim === 1;
      const flat = fanInFanOut ? weight : weight.reshape(weight.shape[0] as number, -1);
      // [r, out] and [r, r]
      const projected = recordOp(() => session().linear(loraA.id, flat.id, undefined, fanInFanOut));
      const cross = loraB.mul(projected.transpose()).sum(1);
      const delta = loraB
        .matmul(loraA.matmul(loraA, { transB: true }))
        .mul(loraB)
        .sum(1);
      const squares = readSquaredNorms(layer, flat)
        .add(cross.mul(2 * scaling))
        .add(delta.mul(scaling * scaling));
      return squares.clamp(0, Infinity).sqrt().reshape(layer.computeStoredShape("magnitude", adapter.r));
    }),
  );
}

function readSquaredNorms(layer: AnyLoRALayer, flat: Tensor): Tensor {
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

/** Returns m / ‖W + scaling · B·A‖ in the magnitude's shape. Only m receives a gradient. */
export function computeRescaling(layer: AnyLoRALayer, adapter: Adapter, scaling: number): Tensor {
  return (adapter.magnitude as Tensor).div(computeNorms(layer, adapter, scaling));
}

/** Releases the cached norms. */
export function forgetNorms(layer: AnyLoRALayer): void {
  release(layer.squaredNorms?.squares);
  layer.squaredNorms = null;
}
