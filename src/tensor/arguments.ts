/** Checks of arguments. */
import { LowrankError } from "../errors.js";

/** A place counted from either end, checked. */
export function dimension(op: string, dim: number, rank: number): number {
  const at = dim < 0 ? dim + rank : dim;
  if (!Number.isInteger(at) || at < 0 || at >= rank) {
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `${op}: there is no dimension ${dim} in a tensor of ${rank} dimensions`,
    );
  }
  return at;
}
