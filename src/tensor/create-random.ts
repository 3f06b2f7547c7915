/** Creates random whole numbers and samples from distributions, using the generator seeded by `manualSeed`. */
import * as argument from "../arguments/check.js";
import { checkShapeAndOptions, finishTensor, tensor, type TensorOptions } from "./create.js";
import { call, native } from "../native/binding.js";
import { drawStream } from "./random.js";
import type { Tensor } from "./tensor.js";
import { checkInteger, checkTensor } from "./arguments.js";
import type { MultinomialOptions } from "./drawing.js";

/** Options of random whole numbers; `dtype` defaults to i32. */
export type RandomOptions = Omit<TensorOptions, "shape">;

/**
 * Creates whole numbers of `shape`, uniform on [low, high); i32 by default. Equivalent to `torch.randint(low, high, size)`.
 * A seed gives the same values on every device. Throws `ERR_OPTION` for bounds outside of i32, and unless low < high.
 */
export function randint(
  low: number,
  high: number,
  shape: readonly number[],
  options?: RandomOptions,
): Tensor {
  checkInteger("randint", "low", low);
  checkInteger("randint", "high", high);
  argument.checkNumberThat("randint", "low", low, (n) => n >= -(2 ** 31), "at least −2³¹");
  argument.checkNumberThat(
    "randint",
    "high",
    high,
    (n) => n > low && n <= 2 ** 31,
    "above low and at most 2³¹",
  );
  const { device, ...given } = checkShapeAndOptions("randint", shape, options);
  const size = shape.reduce((n, d) => n * d, 1);
  const values = call(() => native().integers(...drawStream(), size, low, high));
  return finishTensor(tensor(values, { shape, device }), { dtype: "i32", ...dropUndefinedDtype(given) });
}

/**
 * Creates a random permutation of 0 to n − 1, [n]; i32 by default. Equivalent to `torch.randperm`. A seed gives the same
 * permutation on every device. Throws `ERR_OPTION`.
 */
export function randperm(n: number, options?: RandomOptions): Tensor {
  argument.checkWhole("randperm", "n", n);
  argument.checkNumberThat("randperm", "n", n, (size) => size < 2 ** 31, "below 2³¹");
  const { device, ...given } = checkShapeAndOptions("randperm", [n], options);
  const values = call(() => native().permutation(...drawStream(), n));
  return finishTensor(tensor(values, { device }), { dtype: "i32", ...dropUndefinedDtype(given) });
}

/** Draws 1 with the probability of each element, else 0. Equivalent to `probabilities.bernoulli()`. */
export function bernoulli(probabilities: Tensor): Tensor {
  return checkTensor("bernoulli", "probabilities", probabilities).bernoulli();
}

/** Draws indices in proportion to `weights` along the last dimension. Equivalent to `weights.multinomial(count, options)`. */
export function multinomial(weights: Tensor, count: number, options?: MultinomialOptions): Tensor {
  return checkTensor("multinomial", "weights", weights).multinomial(count, options);
}

/** Returns the options without undefined `dtype`. */
function dropUndefinedDtype({ dtype, requiresGrad }: TensorOptions): TensorOptions {
  return { ...(dtype !== undefined && { dtype }), requiresGrad };
}
