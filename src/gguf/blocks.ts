/** Quantises values to blocks, bit for bit as ggml's reference (quantize_row_q*_ref of ggml-quants.c). */
import { setImmediate as turn } from "node:timers/promises";

import { call, native } from "../native/binding.js";
import { countBytes, type GgufBlock } from "./types.js";

/** Values per slice between yields to the event loop, about ten milliseconds. */
const SLICE = 1 << 21;

/**
 * Quantises `values` in the engine; their count must be a multiple of the block size. Returns undefined where a value
 * is not finite, or so large that its block's scale overflows f16.
 */
export async function quantise(values: Float32Array, type: GgufBlock): Promise<Uint8Array | undefined> {
  const out = new Uint8Array(countBytes(type, values.length));
  for (let start = 0; start < values.length; start += SLICE) {
    const blocks = call(() => native().blocksOf(values.subarray(start, start + SLICE), type));
    if (blocks === null) return undefined;
    out.set(blocks, countBytes(type, start));
    await turn();
  }
  return out;
}
