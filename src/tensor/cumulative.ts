/** Products along a dimension, and log-sum-exp. */
import { session } from "../native/binding.js";
import { scope } from "./scope.js";
import type { Tensor } from "./tensor.js";
import { checkDimension, checkDimensions } from "./arguments.js";
import { recordOp, widen } from "./operand.js";
import { checkKeepDim, replaceByOnes, type Dims, type ReduceOptions } from "./reductions.js";

/** The length above which a line is split, because one GPU invocation multiplies a whole line. */
const LONGEST_LINE = 4096;

export const cumulative = {
  /**
   * Returns cumulative products along `dim`, each element included. Gradients are exact where there are zeros. Throws
   * `ERR_SHAPE_MISMATCH` for a missing dimension, `ERR_DTYPE` for i32.
   */
  cumprod(dim: number): Tensor {
    const { shape } = this;
    const axis = checkDimension("cumprod", dim, Math.max(shape.length, 1));
    return scope(() => {
      const x = shape.length === 0 ? widen(this).reshape(1) : widen(this);
      return recordOp(() => session().cumprod(x.id, axis)).reshape(shape);
    });
  },

  /**
   * Returns the product over `dim`, or of all elements, as f32; 1 for an empty dimension. Gradients are exact where
   * there are zeros. Shapes and errors as in `sum`; also throws `ERR_DTYPE` for i32.
   */
  prod(dim?: Dims, options?: ReduceOptions): Tensor {
    const keepDim = checkKeepDim("prod", options);
    const { shape } = this;
    const dims = checkDimensions("prod", dim, shape.length);
    return scope(() => {
      const rest = shape.map((_, d) => d).filter((d) => !dims.includes(d));
      const sizes = rest.map((d) => shape[d] as number);
      const count = dims.reduce((n, d) => n * (shape[d] as number), 1);
      const last = rest.every((d, i) => d === i);
      const permuted = last ? widen(this) : widen(this).permute([...rest, ...dims]);
      const y = multiplyAlong(permuted.reshape([...sizes, count]));
      return y.reshape(keepDim ? replaceByOnes(shape, dims) : sizes);
    });
  },

  /**
   * Returns log Σ eˣ over `dim`, or over all elements, as f32, without overflow; −∞ where all elements are −∞ or there
   * are none. Shapes and errors as in `sum`.
   */
  logsumexp(dim?: Dims, options?: ReduceOptions): Tensor {
    const keepDim = checkKeepDim("logsumexp", options);
    const { shape } = this;
    const dims = checkDimensions("logsumexp", dim, shape.length);
    return scope(() => {
      const x = this.dtype === "i32" ? this.to("f32") : widen(this);
      const empty = dims.some((d) => shape[d] === 0);
      const largest = empty ? undefined : x.detach().max(dims, { keepDim: true });
      // Subtracting an infinite maximum from itself would give NaN.
      const shift = largest?.where(largest.isFinite(), 0);
      const sum = (shift === undefined ? x : x.sub(shift)).exp().sum(dims, { keepDim: true });
      // Avoid log 0, whose gradient is infinite.
      const some = sum.ne(0);
      const log = sum.where(some, 1).log().where(some, -Infinity);
      const y = shift === undefined ? log : log.add(shift);
      return keepDim ? y : y.reshape(shape.filter((_, d) => !dims.includes(d)));
    });
  },
} satisfies ThisType<Tensor>;
export type Cumulative = typeof cumulative;

/** Returns the product along the last dimension, of any size: [.., N] → [..]. */
function multiplyAlong(x: Tensor): Tensor {
  const outer = x.shape.slice(0, -1);
  const n = x.shape.at(-1) as number;
  // The sum over an empty dimension is 0.
  if (n === 0) return x.sum(-1).add(1);
  if (n > LONGEST_LINE) {
    const columns = Math.ceil(Math.sqrt(n));
    const rows = Math.ceil(n / columns);
    const padded = rows * columns === n ? x : x.pad([0, rows * columns - n], { value: 1 });
    return multiplyAlong(multiplyAlong(padded.reshape([...outer, rows, columns])));
  }
  const running = recordOp(() => session().cumprod(x.id, outer.length));
  return running.slice(-1, n - 1).reshape(outer);
}
