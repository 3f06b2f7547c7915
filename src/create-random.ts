/** Creates tensors of random whole numbers, and draws by probabilities, by the generator that `manualSeed` starts. */
import * as argument from "./argument.js";
import { filled, finished, tensor, type TensorOptions } from "./create.js";
import { call, native } from "./native.js";
import { nextDropout } from "./random.js";
import type { Tensor } from "./tensor.js";
import { integer, tensorOf } from "./tensor/arguments.js";
import type { MultinomialOptions } from "./tensor/drawing.js";

/** The options of random whole numbers; `dtype` is i32 by default. */
export type RandomOptions = Omit<TensorOptions, "shape">;

/**
 * Whole numbers of `shape`, uniform on [low, high), i32 by default. As `torch.randint(low, high, size)`; the
 * values of a seed are the same on every device. Throws `ERR_OPTION` for bounds beyond i32, and unless low < high.
 */
export function randint(
  low: number,
  high: number,
  shape: readonly number[],
  options?: RandomOptions,
): Tensor {
  integer("randint", "low", low);
  integer("randint", "high", high);
  argument.numberThat("randint", "low", low, (n) => n >= -(2 ** 31), "at least −2³¹");
  argument.numberThat("randint", "high", high, (n) => n > low && n <= 2 ** 31, "above low and at most 2³¹");
  const { device, ...given } = filled("randint", shape, options);
  const size = shape.reduce((n, d) => n * d, 1);
  const values = call(() => native().integers(...nextDropout(), size, low, high));
  return finished(tensor(values, { shape, device }), { dtype: "i32", ...defined(given) });
}

/**
 * 0 to n − 1 in random order, [n], i32 by default. As `torch.randperm`; the order of a seed is the same on
 * every device. Throws `ERR_OPTION`.
 */
export function randperm(n: number, options?: RandomOptions): Tensor {
  argument.whole("randperm", "n", n);
  argument.numberThat("randperm", "n", n, (size) => size < 2 ** 31, "below 2³¹");
  const { device, ...given } = filled("randperm", [n], options);
  const values = call(() => native().permutation(...nextDropout(), n));
  return finished(tensor(values, { device }), { dtype: "i32", ...defined(given) });
}

/** 1 with each element of `probabilities` as the probability, 0 otherwise: its `bernoulli()`. */
export function bernoulli(probabilities: Tensor): Tensor {
  return tensorOf("bernoulli", "probabilities", probabilities).bernoulli();
}

/** Indices drawn in proportion to `weights` along the last dimension: their `multinomial(count, options)`. */
export function multinomial(weights: Tensor, count: number, options?: MultinomialOptions): Tensor {
  return tensorOf("multinomial", "weights", weights).multinomial(count, options);
}

/** The options that are given. */
function defined({ dtype, requiresGrad }: TensorOptions): TensorOptions {
  return { ...(dtype !== undefined && { dtype }), requiresGrad };
}
