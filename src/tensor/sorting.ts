/** Order along a dimension. */
import * as argument from "../argument.js";
import { session } from "../native.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import { dimension } from "./arguments.js";
import { Indexing } from "./indexing.js";
import { made, madeAll } from "./operand.js";

/** What `sort` and `topk` give. */
export interface Sorted {
  /** The elements in order, as f32 or i32. */
  values: Tensor;
  /** Where each stood along the dimension, as i32. */
  indices: Tensor;
}

/** Options of `sort`. */
export interface SortOptions {
  /** Whether the largest comes first; the smallest does by default. */
  descending?: boolean | undefined;
}

/** Options of `topk`. */
export interface TopkOptions {
  /** The largest, from the largest on, unless false: then the smallest, from the smallest on. */
  largest?: boolean | undefined;
}

export abstract class Sorting extends Indexing {
  /**
   * The elements along `dim` in order, and where they stood. Equal elements stay in the order they were in, whichever way
   * it goes; NaN is larger than all. The gradient goes to where each value came from.
   *
   * Shapes: both are this one's. Throws `ERR_SHAPE_MISMATCH` where there is no such dimension, `ERR_OPTION`.
   */
  sort(dim = -1, options?: SortOptions): Sorted {
    const { descending = false } = argument.options("sort", options, ["descending"]);
    argument.flag("sort", "descending", descending);
    const at = dimension("sort", dim, Math.max(this.shape.length, 1));
    return this.#sorted(at, descending, this.shape[at] ?? 1, false);
  }

  /**
   * The `k` largest elements along `dim`, in order, and where they stand; of equal ones those that come first. NaN is
   * larger than all. Gradient and errors as `sort`; also throws `ERR_SHAPE_MISMATCH` where there are fewer than `k`.
   */
  topk(k: number, dim = -1, options?: TopkOptions): Sorted {
    const { largest = true } = argument.options("topk", options, ["largest"]);
    argument.flag("topk", "largest", largest);
    argument.whole("topk", "k", k);
    return this.#sorted(dimension("topk", dim, Math.max(this.shape.length, 1)), largest, k, true);
  }

  /**
   * Running sums: each element is the sum of those along `dim` up to and with it. Throws `ERR_SHAPE_MISMATCH` where there is
   * no such dimension, `ERR_DTYPE` for i32.
   */
  cumsum(dim: number): Tensor {
    const { shape } = this;
    const at = dimension("cumsum", dim, Math.max(shape.length, 1));
    return scope(() => {
      const x = shape.length === 0 ? this.widened().reshape(1) : this.widened();
      return made(() => session().cumsum(x.id, at)).reshape(shape);
    });
  }

  #sorted(dim: number, descending: boolean, count: number, topk: boolean): Sorted {
    return scope(() => {
      const scalar = this.shape.length === 0;
      const x = scalar ? this.widened().reshape(1) : this.widened();
      const [values, indices] = madeAll(() => session().sort(x.id, dim, descending, count, topk)) as [
        Tensor,
        Tensor,
      ];
      const back = (y: Tensor): Tensor => (scalar && count === 1 ? y.reshape([]) : y);
      return { values: back(values), indices: back(indices) };
    });
  }
}
