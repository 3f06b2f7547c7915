/** Storage of weights in blocks. */
import type { BlockDType } from "../tensor.js";

/** What weights are quantised to as a model is loaded. */
export const QUANTIZATIONS = ["q8_0", "q4_0", "q4_k", "nf4"] as const satisfies readonly BlockDType[];

/** Storage that `quantize` names: ggml's q8_0, q4_0 and q4_k, or QLoRA's nf4. */
export type Quantization = (typeof QUANTIZATIONS)[number];

/** Whether a layer stands in one of a model's blocks, which are numbered: heads and embeddings do not. */
export function isInBlock(path: string): boolean {
  return /\.\d+\./.test(path);
}
