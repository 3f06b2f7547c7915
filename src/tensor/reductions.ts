/** Reductions over one dimension, several, or all. */
import * as argument from "../argument.js";
import { session } from "../native.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import { dimension, dimensions } from "./arguments.js";
import { Elementwise } from "./elementwise.js";
import { isHalf, made } from "./operand.js";

/** Options of reductions. */
export interface ReduceOptions {
  /** Whether what is reduced over stays as dimensions of size 1; false by default. */
  keepDim?: boolean | undefined;
}

/** Options of `var` and `std`. */
export interface VarianceOptions extends ReduceOptions {
  /**
   * What is taken from the number of values to divide by: 1, by default, for the unbiased variance, 0 for that of the
   * values themselves.
   */
  correction?: number | undefined;
}

/** Options of `norm`. */
export interface NormOptions extends ReduceOptions {
  /**
   * Which norm: (Σ |x|ᵖ)^(1/p); ∞ and −∞ for the largest and the smallest |x|, 0 for how many are not 0; 2 by default.
   */
  p?: number | undefined;
}

/** Dimensions to reduce over: one, or several, each once; negative ones count from the end. */
export type Dims = number | readonly number[];

export abstract class Reductions extends Elementwise {
  /**
   * The sum over `dim`, or over all elements.
   *
   * Shapes: any; the result lacks what is summed over, or has it as 1 with `keepDim`. Throws `ERR_SHAPE_MISMATCH` where
   * there is no such dimension, `ERR_OPTION`. f16 and bf16 are summed in f32; sums of i32 are i32, and wrap.
   */
  sum(dim?: Dims, options?: ReduceOptions): Tensor {
    return this.#reduced("sum", dim, options, (x, d) => session().sum(x, d));
  }

  /** The mean over `dim`, or over all elements, as f32; NaN where there is none. Shapes and errors as `sum`. */
  mean(dim?: Dims, options?: ReduceOptions): Tensor {
    if (this.dtype === "i32") return scope(() => this.self.to("f32").mean(dim, options));
    return this.#reduced("mean", dim, options, (x, d) => session().mean(x, d));
  }

  /**
   * The largest values over `dim`, or of all elements, as f32 or i32; NaN where one is NaN. (`argmax` tells where they
   * are.)
   *
   * Over one dimension, given as a number, the gradient goes to the first of equal values, as of `torch.max(x, dim)`;
   * over all, or an array of dimensions, they share it, as of `torch.amax`. Shapes and errors as `sum`; also throws
   * `ERR_SHAPE_MISMATCH` where there is nothing to choose from.
   */
  max(dim?: Dims, options?: ReduceOptions): Tensor {
    return this.#extreme("max", false, dim, options);
  }

  /** The smallest values over `dim`, or of all elements; else as `max`. */
  min(dim?: Dims, options?: ReduceOptions): Tensor {
    return this.#extreme("min", true, dim, options);
  }

  /**
   * Where the first of the largest values is, as i32: over `dim`, or in row-major order of all. NaN is larger than all.
   * Shapes and errors as `max`.
   */
  argmax(dim?: number, options?: ReduceOptions): Tensor {
    return this.#place("argmax", false, dim, options);
  }

  /** Where the first of the smallest values is, as i32; NaN comes before all. Else as `argmax`. */
  argmin(dim?: number, options?: ReduceOptions): Tensor {
    return this.#place("argmin", true, dim, options);
  }

  /**
   * 1 where any element along `dim` (or of all) is not 0, as i32; NaN is not 0. 0 where there is none. Shapes and errors
   * as `sum`.
   */
  any(dim?: Dims, options?: ReduceOptions): Tensor {
    return this.#truth("any", false, dim, options);
  }

  /** 1 where no element along `dim` (or of all) is 0, as i32. 1 where there is none. Shapes and errors as `sum`. */
  all(dim?: Dims, options?: ReduceOptions): Tensor {
    return this.#truth("all", true, dim, options);
  }

  /**
   * The variance over `dim`, or of all elements: Σ (x − mean)² / (n − correction), unbiased unless `correction` is 0. NaN
   * where n is no larger than the correction. Shapes and errors as `sum`.
   */
  var(dim?: Dims, options: VarianceOptions = {}): Tensor {
    return this.#variance("var", dim, options);
  }

  /** The standard deviation, the root of `var`; its gradient is 0 where it is 0, as in PyTorch. */
  std(dim?: Dims, options: VarianceOptions = {}): Tensor {
    return scope(() => root(this.#variance("std", dim, options)));
  }

  /**
   * The p-norm of what lies along `dim`, or of all elements. Its gradient is 0 where it is 0, as in PyTorch. Shapes and
   * errors as `sum`.
   */
  norm(dim?: Dims, options: NormOptions = {}): Tensor {
    const { p = 2, ...rest } = argument.options("norm", options, ["p", "keepDim"]);
    argument.numeric("norm", "p", p);
    dimensions("norm", dim, this.shape.length);
    return scope(() => {
      const x = this.widened();
      // Equals share the gradient, as over an array of dimensions.
      const all = (d: Dims | undefined): Dims | undefined => (typeof d === "number" ? [d] : d);
      if (p === 2) return root(made(() => session().unary("square", x.id)).sum(dim, rest));
      if (p === 1) return x.abs().sum(dim, rest);
      if (p === Infinity) return x.abs().max(all(dim), rest);
      if (p === -Infinity) return x.abs().min(all(dim), rest);
      if (p === 0) return x.ne(0).to("f32").sum(dim, rest);
      const a = x.abs();
      // The power of 0 has no finite gradient below 1, and is left out; a negative power of it is infinite.
      const powers = p < 0 ? a.pow(p) : a.where(a, 1).pow(p).where(a, 0);
      const total = powers.sum(dim, rest);
      return p < 0
        ? total.pow(1 / p)
        : total
            .where(total, 1)
            .pow(1 / p)
            .where(total, 0);
    });
  }

  /**
   * exp(x) / Σ exp(x) along `dim`, the last by default, as f32. Throws `ERR_SHAPE_MISMATCH` where there is no such
   * dimension, `ERR_DTYPE` for i32.
   */
  softmax(dim = -1): Tensor {
    const at = dimension("softmax", dim, this.shape.length);
    return this.inFloats((x) => session().softmax(x, at));
  }

  /** log softmax(x) along `dim`, the last by default, without the underflow of both apart. Errors as `softmax`. */
  logSoftmax(dim = -1): Tensor {
    const at = dimension("logSoftmax", dim, this.shape.length);
    return this.inFloats((x) => session().logSoftmax(x, at));
  }

  /** Reduces neighbouring dimensions together, those that lie apart one after the other. */
  #reduced(
    op: string,
    dim: Dims | undefined,
    options: ReduceOptions | undefined,
    reduce: (x: number, dim: number | undefined) => number,
  ): Tensor {
    const keepDim = kept(op, options);
    const { shape } = this;
    const dims = dimensions(op, dim, shape.length);
    const over = (x: Tensor, at?: number): Tensor => made(() => reduce(x.id, at));
    if (!keepDim && !isHalf(this.dtype)) {
      if (dims.length === shape.length) return over(this.self);
      if (dims.length === 1) return over(this.self, dims[0]);
    }
    return scope(() => {
      let x = this.widened();
      if (dims.length === shape.length) x = over(x);
      else for (const [from, to] of runs(dims).reverse()) x = over(merged(x, from, to), from);
      return keepDim ? x.reshape(ones(shape, dims)) : x;
    });
  }

  #extreme(op: string, smallest: boolean, dim: Dims | undefined, options: ReduceOptions | undefined): Tensor {
    const keepDim = kept(op, options);
    const { shape } = this;
    const dims = dimensions(op, dim, shape.length);
    const shared = typeof dim !== "number";
    const over = (x: Tensor, at?: number): Tensor =>
      made(() => session().extremum(smallest, x.id, at, shared));
    if (shared && dims.length === shape.length && !keepDim && !isHalf(this.dtype)) return over(this.self);
    return scope(() => {
      let x = this.widened();
      if (shape.length === 0) return over(x);
      // Those that share a gradient are one dimension: the last, where they do not stand together.
      const [run, ...others] = runs(dims) as [[number, number], ...[number, number][]];
      if (others.length === 0) x = over(merged(x, ...run), run[0]);
      else {
        const rest = shape.map((_, d) => d).filter((d) => !dims.includes(d));
        x = over(merged(x.permute([...rest, ...dims]), rest.length, shape.length - 1), rest.length);
      }
      return keepDim ? x.reshape(ones(shape, dims)) : x;
    });
  }

  #place(op: string, smallest: boolean, dim: number | undefined, options: ReduceOptions | undefined): Tensor {
    const keepDim = kept(op, options);
    const { shape } = this;
    const at = dim === undefined || shape.length === 0 ? undefined : dimension(op, dim, shape.length);
    if (dim !== undefined) dimension(op, dim, Math.max(shape.length, 1));
    return scope(() => {
      const x = this.widened();
      const place = made(() => session().argExtremum(smallest, x.id, at));
      return keepDim ? place.reshape(shape.map((d, i) => (at === undefined || i === at ? 1 : d))) : place;
    });
  }

  #truth(op: string, every: boolean, dim: Dims | undefined, options: ReduceOptions | undefined): Tensor {
    const keepDim = kept(op, options);
    const { shape } = this;
    const dims = dimensions(op, dim, shape.length);
    if (dims.some((d) => shape[d] === 0)) {
      const rest = keepDim ? ones(shape, dims) : shape.filter((_, d) => !dims.includes(d));
      return made(() => session().full(this.device, rest, "i32", every ? 1 : 0));
    }
    return scope(() => {
      const holds = this.widened().ne(0);
      return every ? holds.min(dims, { keepDim }) : holds.max(dims, { keepDim });
    });
  }

  #variance(op: string, dim: Dims | undefined, options: VarianceOptions): Tensor {
    const { correction = 1, keepDim } = argument.options(op, options, ["correction", "keepDim"]);
    argument.numeric(op, "correction", correction);
    kept(op, { keepDim });
    const dims = dimensions(op, dim, this.shape.length);
    const n = dims.reduce((n, d) => n * (this.shape[d] as number), 1);
    return scope(() => {
      const deviation = this.self.sub(this.self.mean(dims, { keepDim: true }));
      const squares = made(() => session().unary("square", deviation.id));
      return squares.sum(dims, { keepDim }).div(Math.max(0, n - correction));
    });
  }
}

function kept(op: string, options: ReduceOptions | undefined): boolean {
  const { keepDim = false } = argument.options(op, options, ["keepDim"]);
  return argument.flag(op, "keepDim", keepDim);
}

/** `shape` with 1 for each of `dims`. */
function ones(shape: readonly number[], dims: readonly number[]): number[] {
  return shape.map((d, i) => (dims.includes(i) ? 1 : d));
}

/** The root of x, whose gradient is 0 where x is 0. */
function root(x: Tensor): Tensor {
  return x.where(x, 1).sqrt().where(x, 0);
}

/** Ascending places as runs of neighbours: the first and the last of each. */
function runs(dims: readonly number[]): [number, number][] {
  const found: [number, number][] = [];
  for (const d of dims) {
    const last = found.at(-1);
    if (last !== undefined && last[1] === d - 1) last[1] = d;
    else found.push([d, d]);
  }
  return found;
}

/** x with dimensions `from` to `to` as one. */
function merged(x: Tensor, from: number, to: number): Tensor {
  if (from === to) return x;
  const size = x.shape.slice(from, to + 1).reduce((n, d) => n * d, 1);
  return x.reshape([...x.shape.slice(0, from), size, ...x.shape.slice(to + 1)]);
}
