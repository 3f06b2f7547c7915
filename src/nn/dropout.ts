import { checkProbability } from "../arguments/check.js";
import { isTraining } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import { checkInput } from "./inputs.js";
import { Module } from "./module.js";

/** In training, zeroes each element with probability p and scales the others by 1 / (1 − p). As `torch.nn.Dropout`. */
export class Dropout extends Module {
  /** Probability of dropping an element. */
  readonly p: number;

  /** Drops with probability `p`, from 0 to 1; 0.5 by default. Throws `ERR_OPTION`. */
  constructor(p = 0.5) {
    super();
    this.p = checkProbability("Dropout", "p", p);
  }

  /** Shapes: x and y [...]; y is x in `eval()`. Throws `ERR_OPTION` if it is not a tensor. */
  forward(x: Tensor): Tensor {
    checkInput("Dropout", x);
    return this.p > 0 && isTraining(this) ? x.dropout(this.p) : x;
  }
}
