/** Elementwise functions by name, as the engine numbers them. */
import { direct, native } from "../native.js";
import type { Tensor } from "../tensor.js";
import { made } from "./operand.js";

let numbers: ReadonlyMap<string, number> | undefined;

function numberOf(name: string): number {
  numbers ??= new Map(
    native()
      .functions()
      .map((known, i) => [known, i]),
  );
  return numbers.get(name) ?? -1;
}

/** A function of one operand, a handle. */
export function unary(name: string, x: number): Tensor {
  return made(() => direct().unary(numberOf(name), x));
}

/** A function of two operands, handles. */
export function binary(name: string, a: number, b: number): Tensor {
  return made(() => direct().binary(numberOf(name), a, b));
}

/** A function of a handle and a number, of which no tensor is made. */
export function binaryNumber(name: string, a: number, b: number): Tensor {
  return made(() => direct().binaryNumber(numberOf(name), a, b));
}
