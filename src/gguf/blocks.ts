/**
 * Values in blocks, rounded as ggml's reference does, so that blocks are equal to the bit (quantize_row_q*_ref of
 * ggml-quants.c).
 */
import { setImmediate as turn } from "node:timers/promises";

import { call, native } from "../native.js";
import { bytesOf, type GgufBlock } from "./types.js";

/** Values between two looks at the event loop, some ten milliseconds. */
const SLICE = 1 << 21;

/**
 * `values` in blocks, rounded by the engine; their count is a multiple of a block's. Gives undefined where a value is not
 * finite, or so large that no f16 holds the scale of its block.
 */
export async function quantised(values: Float32Array, type: GgufBlock): Promise<Uint8Array | undefined> {
  const out = new Uint8Array(bytesOf(type, values.length));
  for (let start = 0; start < values.length; start += SLICE) {
    const blocks = call(() => native().blocksOf(values.subarray(start, start + SLICE), type));
    if (blocks === null) return undefined;
    out.set(blocks, bytesOf(type, start));
    await turn();
  }
  return out;
}
