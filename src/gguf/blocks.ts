/**
 * How GGUF stores values: plainly, or in blocks of 32 with a scale of their own. Rounding is that of ggml's reference,
 * so blocks are the same to the bit (ggml-quants.c: quantize_row_q8_0_ref, quantize_row_q4_0_ref).
 */
import { setImmediate as turn } from "node:timers/promises";

import { call, native } from "../native.js";

/** Storage of a tensor, as GGUF names it. */
export type GgufType = "f32" | "f16" | "bf16" | "q8_0" | "q4_0";

/** Of each: its number in a file, values of a block, bytes of a block. */
export const GGUF_TYPES: Record<GgufType, { id: number; values: number; bytes: number }> = {
  f32: { id: 0, values: 1, bytes: 4 },
  f16: { id: 1, values: 1, bytes: 2 },
  q4_0: { id: 2, values: 32, bytes: 18 },
  q8_0: { id: 8, values: 32, bytes: 34 },
  bf16: { id: 30, values: 1, bytes: 2 },
};

/** Bytes of so many values. */
export function bytesOf(type: GgufType, count: number): number {
  const { values, bytes } = GGUF_TYPES[type];
  return (count / values) * bytes;
}

/** Values between two looks at the event loop, some ten milliseconds. */
const SLICE = 1 << 21;

/**
 * `values` in blocks, rounded by the engine; their count is a multiple of 32. Gives undefined where a value is not finite, or so large that
 * no f16 holds the scale of its block.
 */
export async function quantised(
  values: Float32Array,
  type: "q8_0" | "q4_0",
): Promise<Uint8Array | undefined> {
  const out = new Uint8Array(bytesOf(type, values.length));
  for (let start = 0; start < values.length; start += SLICE) {
    const blocks = call(() => native().blocksOf(values.subarray(start, start + SLICE), type));
    if (blocks === null) return undefined;
    out.set(blocks, bytesOf(type, start));
    await turn();
  }
  return out;
}
