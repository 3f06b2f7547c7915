/**
 * How GGUF stores values: plainly, or in blocks of 32 with a scale of their own. Rounding is that of ggml's reference,
 * so blocks are the same to the bit (ggml-quants.c: quantize_row_q8_0_ref, quantize_row_q4_0_ref).
 */
import { setImmediate as turn } from "node:timers/promises";

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
 * `values` in blocks; their count is a multiple of 32. Gives undefined where a value is not finite, or so large that
 * no f16 holds the scale of its block.
 */
export async function quantised(
  values: Float32Array,
  type: "q8_0" | "q4_0",
): Promise<Uint8Array | undefined> {
  const { bytes } = GGUF_TYPES[type];
  const out = new Uint8Array((values.length / 32) * bytes);
  const block = type === "q8_0" ? q8Block : q4Block;
  for (let start = 0; start < values.length; start += SLICE) {
    const end = Math.min(start + SLICE, values.length);
    for (let i = start; i < end; i += 32) if (!block(values, i, out, (i / 32) * bytes)) return undefined;
    await turn();
  }
  return out;
}

/** The scale as f16, and what values are multiplied by; the latter is 0 where the scale vanishes. */
function writeScale(d: number, out: Uint8Array, at: number): number | undefined {
  const half = halfBits(d);
  if ((half & 0x7c00) === 0x7c00) return undefined;
  out[at] = half & 0xff;
  out[at + 1] = half >> 8;
  const inverse = Math.fround(1 / d);
  return Number.isFinite(inverse) ? inverse : 0;
}

/** d = max|x| / 127, then a signed byte for each value, rounded half away from zero. */
function q8Block(x: Float32Array, from: number, out: Uint8Array, at: number): boolean {
  let largest = 0;
  for (let i = from; i < from + 32; i++) {
    const size = Math.abs(x[i] as number);
    // Nothing is larger than NaN, which stays.
    if (size > largest || Number.isNaN(size)) largest = size;
  }
  const inverse = writeScale(Math.fround(largest / 127), out, at);
  if (inverse === undefined) return false;
  for (let i = 0; i < 32; i++) {
    const scaled = Math.fround((x[from + i] as number) * inverse);
    // In doubles adding a half is exact.
    out[at + 2 + i] = scaled < 0 ? -((0.5 - scaled) | 0) : (scaled + 0.5) | 0;
  }
  return true;
}

/** d = the value of largest size / -8, then four bits for each: x / d + 8, value i beside value i + 16. */
function q4Block(x: Float32Array, from: number, out: Uint8Array, at: number): boolean {
  let largest = x[from] as number;
  let size = Math.abs(largest);
  for (let i = from + 1; i < from + 32; i++) {
    const value = x[i] as number;
    if (Math.abs(value) > size || Number.isNaN(value)) size = Math.abs((largest = value));
  }
  const inverse = writeScale(Math.fround(largest / -8), out, at);
  if (inverse === undefined) return false;
  for (let i = 0; i < 16; i++) {
    const low = Math.fround(Math.fround((x[from + i] as number) * inverse) + 8.5) | 0;
    const high = Math.fround(Math.fround((x[from + 16 + i] as number) * inverse) + 8.5) | 0;
    out[at + 2 + i] = (low > 15 ? 15 : low) | ((high > 15 ? 15 : high) << 4);
  }
  return true;
}

const word = new Float32Array(1);
const wordBits = new Uint32Array(word.buffer);

/** The bits of the nearest f16, ties to even; beyond 65,504 those of infinity, and a NaN for NaN. */
export function halfBits(value: number): number {
  word[0] = value;
  const bits = wordBits[0] as number;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  // 65,520 is half way to what would follow the largest.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Below 2^-14 f16 has multiples of 2^-24.
    const unit = Math.abs(word[0] as number) * 2 ** 24;
    const low = Math.floor(unit);
    const rest = unit - low;
    return sign | (low + (rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? 1 : 0));
  }
  const odd = (magnitude >>> 13) & 1;
  return sign | ((magnitude - 0x38000000 + 0xfff + odd) >>> 13);
}
