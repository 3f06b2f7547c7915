/** The dtypes of operands, and the functions that record an operation and wrap its results. */
import type { Device } from "../device/device.js";
import { enter, scope } from "./scope.js";
import type { Tensor } from "./tensor.js";

/** @internal Block formats, in the session's order. */
export const BLOCK_DTYPES = [
  "q4_0",
  "q4_1",
  "q5_0",
  "q5_1",
  "q8_0",
  "q2_k",
  "q3_k",
  "q4_k",
  "q5_k",
  "q6_k",
  "iq4_nl",
  "nf4",
] as const satisfies readonly BlockDType[];

/** Storage of quantised weights: blocks of elements that share scales, ggml's formats and QLoRA's nf4. */
export type BlockDType =
  "q4_0" | "q4_1" | "q5_0" | "q5_1" | "q8_0" | "q2_k" | "q3_k" | "q4_k" | "q5_k" | "q6_k" | "iq4_nl" | "nf4";

/** Float types with elementwise arithmetic. */
export type FloatDType = "f32" | "f16" | "bf16";

/**
 * The storage of elements. Computation and gradients use f32; f16, bf16 and block formats are for frozen weights; i32
 * is for indices. Linear layers and embeddings compute with weights in block formats; other operations throw
 * `ERR_DTYPE` for them, and need `to("f32")`.
 */
export type DType = FloatDType | "i32" | BlockDType;

/** The description of a handle. */
export interface Description {
  shape: readonly number[];
  dtype: DType;
  device: Exclude<Device, "auto">;
}

/** Returns `x`, converted to f32 if it is f16 or bf16. */
export function widen(x: Tensor): Tensor {
  return isHalf(x.dtype) ? x.to("f32") : x;
}

/** Records `op` on `x`, converted to f32 if it is f16 or bf16. */
export function recordInFloats(x: Tensor, op: (x: number) => number): Tensor {
  if (!isHalf(x.dtype)) return recordOp(() => op(x.id));
  return scope(() => {
    const wide = widen(x);
    return recordOp(() => op(wide.id));
  });
}

/** @internal Whether the dtype is f16 or bf16. */
export function isHalf(dtype: DType): boolean {
  return dtype === "f16" || dtype === "bf16";
}

/** @internal Whether the dtype is a block format. */
export function isBlock(dtype: string): dtype is BlockDType {
  return (BLOCK_DTYPES as readonly string[]).includes(dtype);
}

/** @internal A token required by the constructor of `Tensor`, so that users cannot call it. */
export const HANDLE = Symbol("handle");

let wrap: (id: number, known?: Description) => Tensor;
let recognise: (value: object) => boolean;

/**
 * @internal Registers the tensor constructor and type check; this avoids an import cycle with `Tensor`, which uses this
 * module.
 */
export function registerTensor(constructor: typeof wrap, recognizer: typeof recognise): void {
  wrap = constructor;
  recognise = recognizer;
}

/** Whether `value` is a real tensor, not a prototype or proxy that `instanceof` would accept. */
export function isTensor(value: unknown): value is Tensor {
  return typeof value === "object" && value !== null && recognise(value);
}

/** Wraps a handle as a tensor owned by the innermost scope. */
export function wrapHandle(id: number, known?: Description): Tensor {
  return wrap(id, known);
}

/** Runs an operation in the current mode and wraps its result. */
export function recordOp(op: () => number): Tensor {
  enter();
  return wrap(op());
}

/** Like `recordOp`, for an operation with several results. */
export function recordOps(op: () => number[]): Tensor[] {
  enter();
  return op().map((id) => wrap(id));
}
