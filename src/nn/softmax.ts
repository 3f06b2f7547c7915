/** Softmax and its logarithm as layers. */
import { checkNumberThat } from "../arguments/check.js";
import type { Tensor } from "../tensor/tensor.js";
import { checkInput } from "./inputs.js";
import { Module } from "./module.js";

/** exp(x) / Σ exp(x) along a dimension. As `torch.nn.Softmax`. */
export class Softmax extends Module {
  /** The dimension that sums to 1. */
  readonly dim: number;

  /** Along `dim`, by default the last. Throws `ERR_OPTION`. */
  constructor(dim = -1) {
    super();
    this.dim = checkNumberThat("Softmax", "dim", dim, Number.isSafeInteger, "a whole number");
  }

  /** Shapes: x and y [...]. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH` if the dimension does not exist, `ERR_DTYPE`. */
  forward(x: Tensor): Tensor {
    return checkInput("Softmax", x).softmax(this.dim);
  }
}

/** log softmax(x) along a dimension. As `torch.nn.LogSoftmax`. */
export class LogSoftmax extends Module {
  /** The dimension whose exponentials sum to 1. */
  readonly dim: number;

  /** Along `dim`, by default the last. Throws `ERR_OPTION`. */
  constructor(dim = -1) {
    super();
    this.dim = checkNumberThat("LogSoftmax", "dim", dim, Number.isSafeInteger, "a whole number");
  }

  /** Shapes: x and y [...]. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH` if the dimension does not exist, `ERR_DTYPE`. */
  forward(x: Tensor): Tensor {
    return checkInput("LogSoftmax", x).logSoftmax(this.dim);
  }
}
