/** Products of matrices, and the loss of logits. */
import * as argument from "../argument.js";
import { session } from "../native.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import { integer, tensorOf } from "./arguments.js";
import { isHalf, made } from "./operand.js";
import { Sorting } from "./sorting.js";

/** Options of `matmul`. */
export interface MatmulOptions {
  /** Whether this is [.., K, M], taken the other way round; not unless told. */
  transA?: boolean | undefined;
  /** Whether the other factor is [.., N, K], taken the other way round; not unless told. */
  transB?: boolean | undefined;
}

/** Options of `crossEntropy`. */
export interface CrossEntropyOptions {
  /** Rows with this target count for nothing; −100 unless given. */
  ignoreIndex?: number | undefined;
  /** What share of each target is spread over all classes, from 0 to 1; 0 unless given. */
  labelSmoothing?: number | undefined;
  /** The mean over the rows that count (NaN where none does), their sum, or a loss for each row; `mean` unless given. */
  reduction?: "mean" | "sum" | "none" | undefined;
}

export abstract class Products extends Sorting {
  /**
   * Batched matrix product [.., M, K] · [.., K, N], leading dimensions broadcast, as f32. Both have two dimensions or more,
   * unlike PyTorch's. Throws `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`, `ERR_DEVICE_MISMATCH`, `ERR_OPTION`.
   */
  matmul(other: Tensor, options?: MatmulOptions): Tensor {
    const { transA = false, transB = false } = argument.options("matmul", options, ["transA", "transB"]);
    const of = tensorOf("matmul", "other", other);
    argument.flag("matmul", "transA", transA);
    argument.flag("matmul", "transB", transB);
    return product(this.self, of, transA, transB);
  }

  /**
   * Cross-entropy of logits [.., V] against targets [..], i32: −log softmax(logits) at each target, as f32. The loss is a
   * scalar, or [..] with `none`. As `torch.nn.functional.cross_entropy`, with classes last. Throws `ERR_INDEX` for a
   * target outside of V, where the host knows it, `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`, `ERR_OPTION`.
   */
  crossEntropy(targets: Tensor, options?: CrossEntropyOptions): Tensor {
    const given = argument.options("crossEntropy", options, ["ignoreIndex", "labelSmoothing", "reduction"]);
    const { ignoreIndex = -100, labelSmoothing = 0, reduction = "mean" } = given;
    const of = tensorOf("crossEntropy", "targets", targets);
    integer("crossEntropy", "ignoreIndex", ignoreIndex);
    argument.probability("crossEntropy", "labelSmoothing", labelSmoothing);
    argument.oneOf("crossEntropy", "reduction", reduction, ["mean", "sum", "none"]);
    return this.inFloats((x) => session().crossEntropy(x, of.id, ignoreIndex, labelSmoothing, reduction));
  }
}

/** a·b of matrices. A half factor is widened where no kernel reads it: the first, and the second of a transposed one. */
function product(a: Tensor, b: Tensor, transA: boolean, transB: boolean): Tensor {
  const widens = isHalf(a.dtype) || (transA && isHalf(b.dtype));
  if (!widens) return made(() => session().matmul(a.id, b.id, transA, transB));
  return scope(() => product(a.to("f32"), transA ? b.to("f32") : b, transA, transB));
}
