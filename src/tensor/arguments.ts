/** Argument checks that involve tensors; all others are in `argument.ts`. */
import { refuse } from "../arguments/check.js";
import { LowrankError } from "../errors.js";
import type { Tensor } from "./tensor.js";
import { isTensor } from "./operand.js";

/** Checks for a tensor; `name` is the argument's name. Throws `ERR_OPTION`. */
export function checkTensor(op: string, name: string, value: unknown): Tensor {
  return isTensor(value) ? value : refuse(op, name, "a tensor", value);
}

/** Checks for a tensor or an array of them. Throws `ERR_OPTION`. */
export function checkTensors(op: string, name: string, value: unknown): Tensor[] {
  if (isTensor(value)) return [value];
  if (!Array.isArray(value)) return refuse(op, name, "a tensor or an array of tensors", value);
  return value.map((item, i) => checkTensor(op, `${name}[${i}]`, item));
}

/** Checks for a whole number of either sign. Throws `ERR_OPTION`. */
export function checkInteger(op: string, name: string, value: unknown): number {
  return Number.isSafeInteger(value) ? (value as number) : refuse(op, name, "a whole number", value);
}

/**
 * Converts a dimension, which may be negative, to its index. Throws `ERR_OPTION` if it is not a whole number, and
 * `ERR_SHAPE_MISMATCH` if it does not exist.
 */
export function checkDimension(op: string, dim: number, rank: number): number {
  checkInteger(op, "dim", dim);
  const index = dim < 0 ? dim + rank : dim;
  if (index >= 0 && index < rank) return index;
  throw new LowrankError(
    "ERR_SHAPE_MISMATCH",
    `${op}: there is no dimension ${dim} in a tensor of ${rank} dimensions`,
  );
}

/** Returns dimensions in ascending order, without duplicates; all if none is given. Throws as `checkDimension` does. */
export function checkDimensions(
  op: string,
  dim: number | readonly number[] | undefined,
  rank: number,
): number[] {
  const named = dim === undefined ? [] : Array.isArray(dim) ? (dim as number[]) : [dim as number];
  // As in PyTorch, a scalar can be reduced as if it had one dimension.
  const places = named.map((d) => checkDimension(op, d, Math.max(rank, 1))).filter((d) => d < rank);
  if (named.length === 0) return Array.from({ length: rank }, (_, d) => d);
  const sorted = [...places].sort((a, b) => a - b);
  const twice = sorted.find((d, i) => d === sorted[i + 1]);
  if (twice === undefined) return sorted;
  throw new LowrankError(
    "ERR_SHAPE_MISMATCH",
    `${op}: dimension ${twice} is named twice in [${named.join(", ")}]`,
  );
}

/** Returns sizes given as arguments or as an array. Throws `ERR_OPTION` for one below `least`. */
export function checkSizes(op: string, given: readonly unknown[], least = 0): number[] {
  const list = given.length === 1 && Array.isArray(given[0]) ? (given[0] as unknown[]) : given;
  const isValid = (n: unknown): boolean => Number.isSafeInteger(n) && (n as number) >= least;
  const wrong = list.findIndex((n) => !isValid(n));
  // Copied, because the binding does not accept a proxy of an array.
  if (wrong < 0) return [...list] as number[];
  const expected = least < 0 ? "a whole number, or −1" : `a whole number of at least ${least}`;
  return refuse(op, `shape[${wrong}]`, expected, list[wrong]);
}

/** Formats a shape for error messages. */
export function formatShape(shape: readonly number[]): string {
  return `[${shape.join(", ")}]`;
}
