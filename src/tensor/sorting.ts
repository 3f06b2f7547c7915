/** Sorting along a dimension, and cumulative sums. */
import * as argument from "../arguments/check.js";
import { session } from "../native/binding.js";
import { scope } from "./scope.js";
import type { Tensor } from "./tensor.js";
import { checkDimension } from "./arguments.js";
import { recordOp, recordOps, widen } from "./operand.js";

/** The result of `sort` and `topk`. */
export interface Sorted {
  /** The sorted elements, as f32 or i32. */
  values: Tensor;
  /** Their original positions along the dimension, as i32. */
  indices: Tensor;
}

/** Options of `sort`. */
export interface SortOptions {
  /** Whether to sort from largest to smallest; ascending by default. */
  descending?: boolean | undefined;
}

/** Options of `topk`. */
export interface TopkOptions {
  /** Whether to return the largest elements, in descending order (the default), or the smallest, ascending. */
  largest?: boolean | undefined;
}

export const sorting = {
  /**
   * Sorts the elements along `dim`, and returns their original positions. The sort is stable in both directions; NaN
   * counts as largest. Gradients flow to the original positions.
   *
   * Shapes: both results have this tensor's shape. Throws `ERR_SHAPE_MISMATCH` for a missing dimension, `ERR_OPTION`.
   */
  sort(dim = -1, options?: SortOptions): Sorted {
    const { descending = false } = argument.checkKnownOptions("sort", options, ["descending"]);
    argument.checkFlag("sort", "descending", descending);
    const axis = checkDimension("sort", dim, Math.max(this.shape.length, 1));
    return sortBy(this, axis, descending, this.shape[axis] ?? 1, false);
  },

  /**
   * Returns the `k` largest elements along `dim`, sorted, with their positions; of equal ones the first. NaN counts as
   * largest. Gradient and errors as in `sort`; also throws `ERR_SHAPE_MISMATCH` where there are fewer than `k`
   * elements.
   */
  topk(k: number, dim = -1, options?: TopkOptions): Sorted {
    const { largest = true } = argument.checkKnownOptions("topk", options, ["largest"]);
    argument.checkFlag("topk", "largest", largest);
    argument.checkWhole("topk", "k", k);
    return sortBy(this, checkDimension("topk", dim, Math.max(this.shape.length, 1)), largest, k, true);
  },

  /**
   * Returns cumulative sums along `dim`, each element included. Throws `ERR_SHAPE_MISMATCH` for a missing dimension,
   * `ERR_DTYPE` for i32.
   */
  cumsum(dim: number): Tensor {
    const { shape } = this;
    const axis = checkDimension("cumsum", dim, Math.max(shape.length, 1));
    return scope(() => {
      const x = shape.length === 0 ? widen(this).reshape(1) : widen(this);
      return recordOp(() => session().cumsum(x.id, axis)).reshape(shape);
    });
  },
} satisfies ThisType<Tensor>;
export type Sorting = typeof sorting;

function sortBy(x: Tensor, dim: number, descending: boolean, count: number, topk: boolean): Sorted {
  return scope(() => {
    const scalar = x.shape.length === 0;
    const line = scalar ? widen(x).reshape(1) : widen(x);
    const [values, indices] = recordOps(() => session().sort(line.id, dim, descending, count, topk)) as [
      Tensor,
      Tensor,
    ];
    const restoreShape = (y: Tensor): Tensor => (scalar && count === 1 ? y.reshape([]) : y);
    return { values: restoreShape(values), indices: restoreShape(indices) };
  });
}
