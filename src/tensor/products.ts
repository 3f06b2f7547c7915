/** Matrix products and cross-entropy. */
import * as argument from "../arguments/check.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import { scope } from "./scope.js";
import type { Tensor } from "./tensor.js";
import { checkInteger, formatShape, checkTensor } from "./arguments.js";
import { recordInFloats, isHalf, recordOp, widen } from "./operand.js";
import { computeWeightedCrossEntropy } from "./weighted-cross-entropy.js";

/** Options of `matmul`. */
export interface MatmulOptions {
  /** Whether this is [.., K, M], to be transposed; false by default. Ignored for a vector. */
  transA?: boolean | undefined;
  /** Whether the other factor is [.., N, K], to be transposed; false by default. Ignored for a vector. */
  transB?: boolean | undefined;
}

/** Options of `crossEntropy`. */
export interface CrossEntropyOptions {
  /** Class weights, [V], which multiply a row's loss; the mean divides by the sum of the rows' weights. */
  weight?: Tensor | undefined;
  /** Rows with this target are ignored; −100 by default. */
  ignoreIndex?: number | undefined;
  /** The share of each target that is spread over all classes, from 0 to 1; 0 by default. */
  labelSmoothing?: number | undefined;
  /** The mean over the rows that count (NaN if none does), their sum, or a loss per row; `mean` by default. */
  reduction?: "mean" | "sum" | "none" | undefined;
}

export const products = {
  /**
   * Returns the batched matrix product [.., M, K] · [.., K, N], with leading dimensions broadcast, as f32. A vector [K]
   * is a row on the left and a column on the right, and the product lacks that dimension, as in PyTorch: for two
   * vectors it is a scalar. Throws `ERR_SHAPE_MISMATCH`, also for a scalar, `ERR_DTYPE`, `ERR_DEVICE_MISMATCH`,
   * `ERR_OPTION`.
   */
  matmul(other: Tensor, options?: MatmulOptions): Tensor {
    const { transA = false, transB = false } = argument.checkKnownOptions("matmul", options, [
      "transA",
      "transB",
    ]);
    const right = checkTensor("matmul", "other", other);
    argument.checkFlag("matmul", "transA", transA);
    argument.checkFlag("matmul", "transB", transB);
    const [rankA, rankB] = [this.shape.length, right.shape.length];
    if (rankA > 1 && rankB > 1) return multiply(this, right, transA, transB);
    checkVectors(this.shape, transA, right.shape, transB);
    return scope(() => {
      const a = rankA === 1 ? this.reshape(1, this.size) : this;
      // A column is a transposed row.
      const b = rankB === 1 ? right.reshape(1, right.size) : right;
      const y = multiply(a, b, transA && rankA > 1, transB || rankB === 1);
      const { shape } = y;
      return y.reshape([
        ...shape.slice(0, -2),
        ...(rankA === 1 ? [] : shape.slice(-2, -1)),
        ...(rankB === 1 ? [] : shape.slice(-1)),
      ]);
    });
  },

  /**
   * Returns the cross-entropy of logits [.., V] against targets [..], i32: −log softmax(logits) at each target, as f32.
   * The result is a scalar, or [..] with `none`. As `torch.nn.functional.cross_entropy`, with classes last; `weight`
   * gets no gradient. Throws `ERR_INDEX` for a target out of range, if the host knows it, `ERR_SHAPE_MISMATCH`,
   * `ERR_DTYPE`, `ERR_OPTION`.
   */
  crossEntropy(targets: Tensor, options?: CrossEntropyOptions): Tensor {
    const given = argument.checkKnownOptions("crossEntropy", options, [
      "weight",
      "ignoreIndex",
      "labelSmoothing",
      "reduction",
    ]);
    const { weight, ignoreIndex = -100, labelSmoothing = 0, reduction = "mean" } = given;
    const labels = checkTensor("crossEntropy", "targets", targets);
    checkInteger("crossEntropy", "ignoreIndex", ignoreIndex);
    // Targets are i32.
    if (ignoreIndex !== (ignoreIndex | 0))
      argument.refuse("crossEntropy", "ignoreIndex", "a whole number of 32 bits", ignoreIndex);
    argument.checkProbability("crossEntropy", "labelSmoothing", labelSmoothing);
    argument.checkChoice("crossEntropy", "reduction", reduction, ["mean", "sum", "none"]);
    if (weight !== undefined) {
      const factors = checkTensor("crossEntropy", "weight", weight);
      return scope(() =>
        computeWeightedCrossEntropy(widen(this), labels, factors, { ignoreIndex, labelSmoothing, reduction }),
      );
    }
    return recordInFloats(this, (x) =>
      session().crossEntropy(x, labels.id, ignoreIndex, labelSmoothing, reduction),
    );
  },
} satisfies ThisType<Tensor>;
export type Products = typeof products;

/** Throws `ERR_SHAPE_MISMATCH` unless a and b, at least one of them a vector or a scalar, share K. */
function checkVectors(a: readonly number[], transA: boolean, b: readonly number[], transB: boolean): void {
  const columns = a.at(a.length > 1 && transA ? -2 : -1);
  const rows = b.at(b.length > 1 && !transB ? -2 : -1);
  if (columns !== undefined && columns === rows) return;
  const shapes = `shapes ${formatShape(a)} and ${formatShape(b)}`;
  throw new LowrankError(
    "ERR_SHAPE_MISMATCH",
    columns === undefined || rows === undefined
      ? `matmul: takes at least one dimension each, got ${shapes}`
      : `matmul: ${shapes} do not fit: the first has ${columns} columns, the second ${rows} rows`,
  );
}

/**
 * Multiplies matrices. Half factors without a kernel are converted to f32: the first, and the second if the first is
 * transposed.
 */
function multiply(a: Tensor, b: Tensor, transA: boolean, transB: boolean): Tensor {
  const widens = isHalf(a.dtype) || (transA && isHalf(b.dtype));
  if (!widens) return recordOp(() => session().matmul(a.id, b.id, transA, transB));
  return scope(() => multiply(a.to("f32"), transA ? b.to("f32") : b, transA, transB));
}
