/** Checks of layers' inputs, and of values that replace random ones. */
import { refuse } from "../arguments/check.js";
import { LowrankError } from "../errors.js";
import { isTensor, type Tensor } from "../tensor/tensor.js";

/** Checks that `x` is a tensor. Throws `ERR_OPTION`. */
export function checkInput(where: string, x: unknown, name = "the input"): Tensor {
  return isTensor(x) ? x : refuse(where, name, "a tensor", x);
}

/** Throws `ERR_SHAPE_MISMATCH`: `where` expects `expected`. */
export function refuseMismatch(where: string, expected: string, x: Tensor): never {
  throw new LowrankError(
    "ERR_SHAPE_MISMATCH",
    `${where}: takes ${expected}, not a tensor of shape [${x.shape.join(", ")}]`,
  );
}

/** Checks the given values of a layer's tensor of `shape`. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`. */
export function checkValues(where: string, name: string, value: unknown, shape: readonly number[]): Tensor {
  if (!isTensor(value)) return refuse(where, name, "a tensor", value);
  if (value.shape.join() === shape.join()) return value;
  throw new LowrankError(
    "ERR_SHAPE_MISMATCH",
    `${where}: ${name} is [${value.shape.join(", ")}], where [${shape.join(", ")}] was expected`,
  );
}
