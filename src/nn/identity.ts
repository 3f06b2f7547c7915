import type { Tensor } from "../tensor/tensor.js";
import { checkInput } from "./inputs.js";
import { Module } from "./module.js";

/** Returns its input. As `torch.nn.Identity`. */
export class Identity extends Module {
  /** Shapes: x and y [...]. Throws `ERR_OPTION` if it is not a tensor. */
  forward(x: Tensor): Tensor {
    return checkInput("Identity", x);
  }
}
