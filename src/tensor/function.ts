/** Elementwise functions by name, mapped to the engine's numbers. */
import { direct, native } from "../native/binding.js";
import type { Tensor } from "./tensor.js";
import { recordOp } from "./operand.js";

let numbers: ReadonlyMap<string, number> | undefined;

function findFunctionNumber(name: string): number {
  numbers ??= new Map(
    native()
      .functions()
      .map((known, i) => [known, i]),
  );
  return numbers.get(name) ?? -1;
}

/** Applies a function to one operand, a handle. */
export function recordUnary(name: string, x: number): Tensor {
  return recordOp(() => direct().unary(findFunctionNumber(name), x));
}

/** Applies a function to two operands, handles. */
export function recordBinary(name: string, a: number, b: number): Tensor {
  return recordOp(() => direct().binary(findFunctionNumber(name), a, b));
}

/** Applies a function to a handle and a number, without creating a tensor from the number. */
export function recordBinaryNumber(name: string, a: number, b: number): Tensor {
  return recordOp(() => direct().binaryNumber(findFunctionNumber(name), a, b));
}
