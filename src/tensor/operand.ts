/** What operations know of a tensor, and how what they made becomes one. */
import type { Device } from "../device.js";
import { enter, scope } from "../scope.js";
import type { Tensor } from "../tensor.js";

/** @internal Types of blocks, in the session's order. */
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

/** What elements are computed with one by one, as floats. */
export type FloatDType = "f32" | "f16" | "bf16";

/**
 * How elements are stored. f32 is what is computed in and what has gradients, f16, bf16 and blocks are of frozen weights,
 * i32 holds indices. Layers and embeddings compute with a weight in blocks; other operations throw `ERR_DTYPE` for it,
 * and take what `to("f32")` makes of it.
 */
export type DType = FloatDType | "i32" | BlockDType;

/** What a handle of the session stands for. */
export interface Description {
  shape: readonly number[];
  dtype: DType;
  device: Exclude<Device, "auto">;
}

/** What the methods of a tensor are written against; `Tensor` is the one class of it. */
export abstract class Operand {
  /** Sizes of its dimensions. */
  abstract readonly shape: readonly number[];
  /** How its elements are stored. */
  abstract readonly dtype: DType;
  /** Where it lives. */
  abstract readonly device: Exclude<Device, "auto">;
  /** @internal The session's number for it. */
  abstract get id(): number;
  /** Number of elements. */
  abstract get size(): number;

  /** @internal This, as the one class there is. */
  protected get self(): Tensor {
    return this as unknown as Tensor;
  }

  /** @internal This, in f32 where it is stored in a half type. */
  protected widened(): Tensor {
    return isHalf(this.dtype) ? this.self.to("f32") : this.self;
  }

  /** @internal What `op` makes of this, given in f32 where it is stored in a half type. */
  protected inFloats(op: (x: number) => number): Tensor {
    if (!isHalf(this.dtype)) return made(() => op(this.id));
    return scope(() => {
      const x = this.widened();
      return made(() => op(x.id));
    });
  }
}

/** @internal Whether elements are stored in two bytes. */
export function isHalf(dtype: DType): boolean {
  return dtype === "f16" || dtype === "bf16";
}

/** @internal Whether elements are stored in blocks. */
export function isBlock(dtype: string): dtype is BlockDType {
  return (BLOCK_DTYPES as readonly string[]).includes(dtype);
}

/** @internal What the constructor of a tensor is called with, so that nobody calls it by hand. */
export const HANDLE = Symbol("handle");

let wrap: (id: number, known?: Description) => Tensor;
let isMade: (value: object) => boolean;

/**
 * @internal Says what makes a tensor of a handle, and what was made so: the class itself knows, which is written in
 * terms of this module.
 */
export function wrapWith(constructor: typeof wrap, recognizer: typeof isMade): void {
  wrap = constructor;
  isMade = recognizer;
}

/** Whether `value` is a tensor, and neither a prototype of one nor a proxy, which `instanceof` takes for one. */
export function isTensor(value: unknown): value is Tensor {
  return typeof value === "object" && value !== null && isMade(value);
}

/** A handle of the session as a tensor, which the innermost scope owns. */
export function wrapped(id: number, known?: Description): Tensor {
  return wrap(id, known);
}

/** Runs an operation under the mode in force and wraps what it made. */
export function made(op: () => number): Tensor {
  enter();
  return wrap(op());
}

/** `made`, of an operation that makes several. */
export function madeAll(op: () => number[]): Tensor[] {
  enter();
  return op().map((id) => wrap(id));
}
