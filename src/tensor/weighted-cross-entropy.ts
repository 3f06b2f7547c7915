/** Cross-entropy with class weights, composed from the fused unweighted one. */
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import type { Tensor } from "./tensor.js";
import { formatShape } from "./arguments.js";
import { isHalf, recordOp } from "./operand.js";

/** The complete, checked options of the loss. */
interface Options {
  ignoreIndex: number;
  labelSmoothing: number;
  reduction: "mean" | "sum" | "none";
}

/**
 * Returns (1 − ε) · w[t] · −log p[t] + ε/V · Σ w[c] · −log p[c] of each row; the mean divides by Σ w[t] over the rows
 * that are not ignored. Shapes: logits f32 [.., V], targets i32 [..], weight [V]. Throws `ERR_SHAPE_MISMATCH`,
 * `ERR_DTYPE`, `ERR_DEVICE_MISMATCH`, `ERR_INDEX`.
 */
export function computeWeightedCrossEntropy(
  logits: Tensor,
  targets: Tensor,
  weight: Tensor,
  { ignoreIndex, labelSmoothing, reduction }: Options,
): Tensor {
  const classes = logits.shape.at(-1) ?? 0;
  if (weight.shape.length !== 1 || weight.shape[0] !== classes) {
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `crossEntropy: weight ${formatShape(weight.shape)} does not have one factor per class of logits ${formatShape(logits.shape)}`,
    );
  }
  if (weight.dtype !== "f32" && !isHalf(weight.dtype)) {
    throw new LowrankError("ERR_DTYPE", `crossEntropy: weight must be floats, not ${weight.dtype}`);
  }
  const factors = weight.to("f32").detach();
  // Also checks the targets.
  const plain = recordOp(() => session().crossEntropy(logits.id, targets.id, ignoreIndex, 0, "none"));
  const counts = targets.ne(ignoreIndex).to("f32");
  // Ignored rows look up class 0, and their factor is 0.
  const indices = targets.to("f32").where(counts, 0).to("i32");
  const rows = factors.indexSelect(0, indices.reshape(targets.size)).reshape(targets.shape).mul(counts);
  let losses = plain.mul(rows);
  if (labelSmoothing > 0) {
    const even = logits.logSoftmax().matmul(factors).mul(counts);
    losses = losses.mul(1 - labelSmoothing).sub(even.mul(labelSmoothing / classes));
  }
  if (reduction === "none") return losses;
  return reduction === "sum" ? losses.sum() : losses.sum().div(rows.sum());
}
