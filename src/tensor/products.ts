/** Products of matrices, and the loss of logits. */
import * as argument from "../argument.js";
import { session } from "../native.js";
import type { Tensor } from "../tensor.js";
import { integer, tensorOf } from "./arguments.js";
import { made } from "./operand.js";
import { Sorting } from "./sorting.js";

/** Options of `matmul`. */
export interface MatmulOptions {
  /** Takes the last two dimensions of this the other way round. */
  transA?: boolean | undefined;
  /** Those of the other factor. */
  transB?: boolean | undefined;
}

/** Options of `crossEntropy`. */
export interface CrossEntropyOptions {
  /** Rows with this target count for nothing; −100 unless given. */
  ignoreIndex?: number | undefined;
  /** What share of each target is spread over all classes. */
  labelSmoothing?: number | undefined;
  /** The mean over the rows that count, their sum, or a loss for each row. */
  reduction?: "mean" | "sum" | "none" | undefined;
}

export abstract class Products extends Sorting {
  /**
   * Batched matrix product [.., M, K] · [.., K, N], leading dimensions broadcast; a factor of one dimension is a row or a
   * column, as in PyTorch. Throws `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`, `ERR_DEVICE_MISMATCH`, `ERR_OPTION`.
   */
  matmul(other: Tensor, options?: MatmulOptions): Tensor {
    const { transA = false, transB = false } = argument.options("matmul", options, ["transA", "transB"]);
    const of = tensorOf("matmul", "other", other);
    argument.flag("matmul", "transA", transA);
    argument.flag("matmul", "transB", transB);
    return made(() => session().matmul(this.id, of.id, transA, transB));
  }

  /**
   * Cross-entropy of logits [.., V] against targets [..], i32. Throws `ERR_INDEX` for a target outside of V, where the host
   * knows it, `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`, `ERR_OPTION`.
   */
  crossEntropy(targets: Tensor, options?: CrossEntropyOptions): Tensor {
    const given = argument.options("crossEntropy", options, ["ignoreIndex", "labelSmoothing", "reduction"]);
    const { ignoreIndex = -100, labelSmoothing = 0, reduction = "mean" } = given;
    const of = tensorOf("crossEntropy", "targets", targets);
    integer("crossEntropy", "ignoreIndex", ignoreIndex);
    argument.probability("crossEntropy", "labelSmoothing", labelSmoothing);
    argument.oneOf("crossEntropy", "reduction", reduction, ["mean", "sum", "none"]);
    return made(() => session().crossEntropy(this.id, of.id, ignoreIndex, labelSmoothing, reduction));
  }
}
