/** Checks of what the operations on tensors are given; what is not about tensors stands in `argument.ts`. */
import { refuse } from "../argument.js";
import { LowrankError } from "../errors.js";
import type { Tensor } from "../tensor.js";
import { isTensor } from "./operand.js";

/** A tensor, where `name` says which argument it is. Throws `ERR_OPTION`. */
export function tensorOf(op: string, name: string, value: unknown): Tensor {
  return isTensor(value) ? value : refuse(op, name, "a tensor", value);
}

/** One tensor, or an array of them. Throws `ERR_OPTION`. */
export function tensorsOf(op: string, name: string, value: unknown): Tensor[] {
  if (isTensor(value)) return [value];
  if (!Array.isArray(value)) return refuse(op, name, "a tensor or an array of tensors", value);
  return value.map((one, i) => tensorOf(op, `${name}[${i}]`, one));
}

/** A whole number, of either sign. Throws `ERR_OPTION`. */
export function integer(op: string, name: string, value: unknown): number {
  return Number.isSafeInteger(value) ? (value as number) : refuse(op, name, "a whole number", value);
}

/**
 * A dimension counted from either end, as its place. Throws `ERR_OPTION` if it is not a whole number, and
 * `ERR_SHAPE_MISMATCH` where there is no such dimension.
 */
export function dimension(op: string, dim: number, rank: number): number {
  integer(op, "dim", dim);
  const at = dim < 0 ? dim + rank : dim;
  if (at >= 0 && at < rank) return at;
  throw new LowrankError(
    "ERR_SHAPE_MISMATCH",
    `${op}: there is no dimension ${dim} in a tensor of ${rank} dimensions`,
  );
}

/** Dimensions in ascending order, each once; all of them where none is named. Throws as `dimension` does. */
export function dimensions(op: string, dim: number | readonly number[] | undefined, rank: number): number[] {
  const named = dim === undefined ? [] : Array.isArray(dim) ? (dim as number[]) : [dim as number];
  // A scalar is reduced over as if it had one dimension, as in PyTorch.
  const places = named.map((d) => dimension(op, d, Math.max(rank, 1))).filter((d) => d < rank);
  if (named.length === 0) return Array.from({ length: rank }, (_, d) => d);
  const sorted = [...places].sort((a, b) => a - b);
  const twice = sorted.find((d, i) => d === sorted[i + 1]);
  if (twice === undefined) return sorted;
  throw new LowrankError(
    "ERR_SHAPE_MISMATCH",
    `${op}: dimension ${twice} is named twice in [${named.join(", ")}]`,
  );
}

/** Sizes of dimensions, given one by one or as an array. Throws `ERR_OPTION` where one is below `least`. */
export function sizes(op: string, given: readonly unknown[], least = 0): number[] {
  const list = given.length === 1 && Array.isArray(given[0]) ? (given[0] as unknown[]) : given;
  const fits = (n: unknown): boolean => Number.isSafeInteger(n) && (n as number) >= least;
  const wrong = list.findIndex((n) => !fits(n));
  // A copy: a proxy of an array is none to the binding.
  if (wrong < 0) return [...list] as number[];
  const expected = least < 0 ? "a whole number, or −1" : `a whole number from ${least} on`;
  return refuse(op, `shape[${wrong}]`, expected, list[wrong]);
}

/** The sizes of `shape`, as errors show them. */
export function shapeOf(shape: readonly number[]): string {
  return `[${shape.join(", ")}]`;
}
