/** Functions that layers compute, by the names of `torch.nn.functional`. */
import type { Tensor } from "../tensor/tensor.js";
import type { CrossEntropyOptions } from "../tensor/products.js";
import { checkInput } from "./inputs.js";

export { scaledDotProductAttention } from "./attention.js";
export { bceWithLogits, cosineSimilarity, huberLoss, klDiv, l1Loss, mseLoss } from "./losses.js";
export { interpolate } from "./upsample.js";

/**
 * Cross-entropy of logits [.., V] against targets [..], i32: `logits.crossEntropy(targets, options)`. As
 * `torch.nn.functional.cross_entropy`, with classes last.
 */
export function crossEntropy(logits: Tensor, targets: Tensor, options?: CrossEntropyOptions): Tensor {
  return checkInput("crossEntropy", logits, "logits").crossEntropy(targets, options);
}
