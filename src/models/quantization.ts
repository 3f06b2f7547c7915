/** Block quantisation of weights. */
import type { BlockDType } from "../tensor/tensor.js";

/** The formats that weights can be quantised to on loading. */
export const QUANTIZATIONS = ["q8_0", "q4_0", "q4_k", "nf4"] as const satisfies readonly BlockDType[];

/** A format of `quantize`: ggml's q8_0, q4_0 and q4_k, or QLoRA's nf4. */
export type Quantization = (typeof QUANTIZATIONS)[number];

/** Whether a layer is part of a numbered block, unlike heads and embeddings. */
export function isInBlock(path: string): boolean {
  return /\.\d+\./.test(path);
}
