/** Products of matrices, and the loss of logits. */
import { session } from "../native.js";
import type { Tensor } from "../tensor.js";
import { Indexing } from "./indexing.js";
import { made } from "./operand.js";

export abstract class Products extends Indexing {
  /** Batched matrix product, leading dimensions broadcast; one-dimensional operands as in PyTorch. */
  matmul(other: Tensor, { transA = false, transB = false } = {}): Tensor {
    return made(() => session().matmul(this.id, other.id, transA, transB));
  }

  /** Cross-entropy of logits [..., V] against i32 targets [...]. */
  crossEntropy(
    targets: Tensor,
    { ignoreIndex = -100, labelSmoothing = 0, reduction = "mean" as "mean" | "sum" | "none" } = {},
  ): Tensor {
    return made(() => session().crossEntropy(this.id, targets.id, ignoreIndex, labelSmoothing, reduction));
  }
}
