/** Reductions over one dimension, several, or all. */
import * as argument from "../arguments/check.js";
import { session } from "../native/binding.js";
import { scope } from "./scope.js";
import type { Tensor } from "./tensor.js";
import { checkDimension, checkDimensions } from "./arguments.js";
import { recordInFloats, isHalf, recordOp, widen } from "./operand.js";

/** Options of reductions. */
export interface ReduceOptions {
  /** Whether reduced dimensions stay with size 1; false by default. */
  keepDim?: boolean | undefined;
}

/** Options of `var` and `std`. */
export interface VarianceOptions extends ReduceOptions {
  /**
   * The divisor is the number of values minus this: 1, the default, for the unbiased variance, 0 for the population
   * variance.
   */
  correction?: number | undefined;
}

/** Options of `norm`. */
export interface NormOptions extends ReduceOptions {
  /**
   * The norm (Σ |x|ᵖ)^(1/p); ∞ and −∞ for the largest and smallest |x|, 0 for the count of nonzero elements; 2 by
   * default.
   */
  p?: number | undefined;
}

/** Dimensions to reduce: one or several, without duplicates; negative ones count from the end. */
export type Dims = number | readonly number[];

export const reductions = {
  /**
   * Returns the sum over `dim`, or over all elements. f16 and bf16 are summed in f32; sums of i32 are i32, and wrap.
   *
   * Shapes: any; the result lacks the reduced dimensions, or has them as 1 with `keepDim`. Throws `ERR_SHAPE_MISMATCH`
   * for a missing dimension, `ERR_OPTION`.
   */
  sum(dim?: Dims, options?: ReduceOptions): Tensor {
    return reduceRuns(this, "sum", dim, options, (x, d) => session().sum(x, d));
  },

  /**
   * Returns the mean over `dim`, or over all elements, as f32; NaN where there are none. Shapes and errors as in `sum`.
   */
  mean(dim?: Dims, options?: ReduceOptions): Tensor {
    if (this.dtype === "i32") return scope(() => this.to("f32").mean(dim, options));
    return reduceRuns(this, "mean", dim, options, (x, d) => session().mean(x, d));
  },

  /**
   * Returns the largest values over `dim`, or of all elements, as f32 or i32; NaN where one is NaN. `argmax` returns
   * their indices.
   *
   * Over one dimension, given as a number, the gradient goes to the first of equal values, as in `torch.max(x, dim)`;
   * over all, or an array of dimensions, they share it, as in `torch.amax`. Shapes and errors as in `sum`; also throws
   * `ERR_SHAPE_MISMATCH` for an empty dimension.
   */
  max(dim?: Dims, options?: ReduceOptions): Tensor {
    return reduceToExtreme(this, "max", false, dim, options);
  },

  /** Returns the smallest values over `dim`, or of all elements; otherwise like `max`. */
  min(dim?: Dims, options?: ReduceOptions): Tensor {
    return reduceToExtreme(this, "min", true, dim, options);
  },

  /**
   * Returns the index of the first largest value, as i32: along `dim`, or in row-major order of all elements. NaN
   * counts as largest. Shapes and errors as in `max`.
   */
  argmax(dim?: number, options?: ReduceOptions): Tensor {
    return findExtreme(this, "argmax", false, dim, options);
  },

  /** Returns the index of the first smallest value, as i32; NaN counts as smallest. Otherwise like `argmax`. */
  argmin(dim?: number, options?: ReduceOptions): Tensor {
    return findExtreme(this, "argmin", true, dim, options);
  },

  /**
   * Returns 1 where any element along `dim` (or of all) is not 0, as i32; NaN is not 0. Returns 0 for an empty
   * dimension. Shapes and errors as in `sum`.
   */
  any(dim?: Dims, options?: ReduceOptions): Tensor {
    return testElements(this, "any", false, dim, options);
  },

  /**
   * Returns 1 where no element along `dim` (or of all) is 0, as i32; 1 for an empty dimension. Shapes and errors as in
   * `sum`.
   */
  all(dim?: Dims, options?: ReduceOptions): Tensor {
    return testElements(this, "all", true, dim, options);
  },

  /**
   * Returns the variance over `dim`, or of all elements: Σ (x − mean)² / (n − correction), unbiased by default. NaN
   * where n is at most the correction. Shapes and errors as in `sum`.
   */
  var(dim?: Dims, options: VarianceOptions = {}): Tensor {
    return computeVariance(this, "var", dim, options);
  },

  /** Returns the standard deviation, the square root of `var`; its gradient is 0 where it is 0, as in PyTorch. */
  std(dim?: Dims, options: VarianceOptions = {}): Tensor {
    return scope(() => takeRoot(computeVariance(this, "std", dim, options)));
  },

  /**
   * Returns the p-norm along `dim`, or of all elements. Its gradient is 0 where it is 0, as in PyTorch. Shapes and
   * errors as in `sum`.
   */
  norm(dim?: Dims, options: NormOptions = {}): Tensor {
    const { p = 2, ...rest } = argument.checkKnownOptions("norm", options, ["p", "keepDim"]);
    argument.checkNumber("norm", "p", p);
    checkDimensions("norm", dim, this.shape.length);
    return scope(() => {
      const x = widen(this);
      // Equal values share the gradient, as over an array of dimensions.
      const all = (d: Dims | undefined): Dims | undefined => (typeof d === "number" ? [d] : d);
      if (p === 2) return takeRoot(recordOp(() => session().unary("square", x.id)).sum(dim, rest));
      if (p === 1) return x.abs().sum(dim, rest);
      if (p === Infinity) return x.abs().max(all(dim), rest);
      if (p === -Infinity) return x.abs().min(all(dim), rest);
      if (p === 0) return x.ne(0).to("f32").sum(dim, rest);
      const a = x.abs();
      // For p below 1 the power of 0 has an infinite gradient, so zeros are masked; negative powers of 0 are infinite
      // anyway.
      const powers = p < 0 ? a.pow(p) : a.where(a, 1).pow(p).where(a, 0);
      const total = powers.sum(dim, rest);
      return p < 0
        ? total.pow(1 / p)
        : total
            .where(total, 1)
            .pow(1 / p)
            .where(total, 0);
    });
  },

  /**
   * Returns exp(x) / Σ exp(x) along `dim`, the last by default, as f32. Throws `ERR_SHAPE_MISMATCH` for a missing
   * dimension, `ERR_DTYPE` for i32.
   */
  softmax(dim = -1): Tensor {
    const axis = checkDimension("softmax", dim, this.shape.length);
    return recordInFloats(this, (x) => session().softmax(x, axis));
  },

  /**
   * Returns log softmax(x) along `dim`, the last by default, in one step without underflow. Throws as `softmax` does.
   */
  logSoftmax(dim = -1): Tensor {
    const axis = checkDimension("logSoftmax", dim, this.shape.length);
    return recordInFloats(this, (x) => session().logSoftmax(x, axis));
  },
} satisfies ThisType<Tensor>;
export type Reductions = typeof reductions;

/** Reduces each run of adjacent dimensions in one step. */
function reduceRuns(
  x: Tensor,
  op: string,
  dim: Dims | undefined,
  options: ReduceOptions | undefined,
  reduce: (x: number, dim: number | undefined) => number,
): Tensor {
  const keepDim = checkKeepDim(op, options);
  const { shape } = x;
  const dims = checkDimensions(op, dim, shape.length);
  const reduceOver = (y: Tensor, axis?: number): Tensor => recordOp(() => reduce(y.id, axis));
  if (!keepDim && !isHalf(x.dtype)) {
    if (dims.length === shape.length) return reduceOver(x);
    if (dims.length === 1) return reduceOver(x, dims[0]);
  }
  return scope(() => {
    let y = widen(x);
    if (dims.length === shape.length) y = reduceOver(y);
    else
      for (const [from, to] of groupRuns(dims).reverse()) y = reduceOver(mergeDimensions(y, from, to), from);
    return keepDim ? y.reshape(replaceByOnes(shape, dims)) : y;
  });
}

function reduceToExtreme(
  x: Tensor,
  op: string,
  smallest: boolean,
  dim: Dims | undefined,
  options: ReduceOptions | undefined,
): Tensor {
  const keepDim = checkKeepDim(op, options);
  const { shape } = x;
  const dims = checkDimensions(op, dim, shape.length);
  const shared = typeof dim !== "number";
  const reduceOver = (y: Tensor, axis?: number): Tensor =>
    recordOp(() => session().extremum(smallest, y.id, axis, shared));
  if (shared && dims.length === shape.length && !keepDim && !isHalf(x.dtype)) return reduceOver(x);
  return scope(() => {
    let y = widen(x);
    if (shape.length === 0) return reduceOver(y);
    // Dimensions that share a gradient are merged into one; nonadjacent ones are moved to the end first.
    const [run, ...others] = groupRuns(dims) as [[number, number], ...[number, number][]];
    if (others.length === 0) y = reduceOver(mergeDimensions(y, ...run), run[0]);
    else {
      const rest = shape.map((_, d) => d).filter((d) => !dims.includes(d));
      y = reduceOver(
        mergeDimensions(y.permute([...rest, ...dims]), rest.length, shape.length - 1),
        rest.length,
      );
    }
    return keepDim ? y.reshape(replaceByOnes(shape, dims)) : y;
  });
}

function findExtreme(
  x: Tensor,
  op: string,
  smallest: boolean,
  dim: number | undefined,
  options: ReduceOptions | undefined,
): Tensor {
  const keepDim = checkKeepDim(op, options);
  const { shape } = x;
  const axis = dim === undefined || shape.length === 0 ? undefined : checkDimension(op, dim, shape.length);
  if (dim !== undefined) checkDimension(op, dim, Math.max(shape.length, 1));
  return scope(() => {
    const y = widen(x);
    const index = recordOp(() => session().argExtremum(smallest, y.id, axis));
    return keepDim ? index.reshape(shape.map((d, i) => (axis === undefined || i === axis ? 1 : d))) : index;
  });
}

function testElements(
  x: Tensor,
  op: string,
  every: boolean,
  dim: Dims | undefined,
  options: ReduceOptions | undefined,
): Tensor {
  const keepDim = checkKeepDim(op, options);
  const { shape } = x;
  const dims = checkDimensions(op, dim, shape.length);
  if (dims.some((d) => shape[d] === 0)) {
    const rest = keepDim ? replaceByOnes(shape, dims) : shape.filter((_, d) => !dims.includes(d));
    return recordOp(() => session().full(x.device, rest, "i32", every ? 1 : 0));
  }
  return scope(() => {
    const holds = widen(x).ne(0);
    return every ? holds.min(dims, { keepDim }) : holds.max(dims, { keepDim });
  });
}

function computeVariance(x: Tensor, op: string, dim: Dims | undefined, options: VarianceOptions): Tensor {
  const { correction = 1, keepDim } = argument.checkKnownOptions(op, options, ["correction", "keepDim"]);
  argument.checkNumber(op, "correction", correction);
  checkKeepDim(op, { keepDim });
  const dims = checkDimensions(op, dim, x.shape.length);
  const n = dims.reduce((n, d) => n * (x.shape[d] as number), 1);
  return scope(() => {
    const deviation = x.sub(x.mean(dims, { keepDim: true }));
    const squares = recordOp(() => session().unary("square", deviation.id));
    return squares.sum(dims, { keepDim }).div(Math.max(0, n - correction));
  });
}

/** Returns `keepDim`, checked. */
export function checkKeepDim(op: string, options: ReduceOptions | undefined): boolean {
  const { keepDim = false } = argument.checkKnownOptions(op, options, ["keepDim"]);
  return argument.checkFlag(op, "keepDim", keepDim);
}

/** Returns `shape` with 1 for each of `dims`. */
export function replaceByOnes(shape: readonly number[], dims: readonly number[]): number[] {
  return shape.map((d, i) => (dims.includes(i) ? 1 : d));
}

/** Returns √x, with a gradient of 0 where x is 0. */
function takeRoot(x: Tensor): Tensor {
  return x.where(x, 1).sqrt().where(x, 0);
}

/** Groups ascending dimensions into runs of adjacent ones: the first and last of each. */
function groupRuns(dims: readonly number[]): [number, number][] {
  const found: [number, number][] = [];
  for (const d of dims) {
    const last = found.at(-1);
    if (last !== undefined && last[1] === d - 1) last[1] = d;
    else found.push([d, d]);
  }
  return found;
}

/** Merges dimensions `from` to `to` of x. */
function mergeDimensions(x: Tensor, from: number, to: number): Tensor {
  if (from === to) return x;
  const size = x.shape.slice(from, to + 1).reduce((n, d) => n * d, 1);
  return x.reshape([...x.shape.slice(0, from), size, ...x.shape.slice(to + 1)]);
}
