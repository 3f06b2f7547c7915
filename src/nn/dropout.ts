import { LowrankError } from "../errors.js";
import { trains } from "../scope.js";
import type { Tensor } from "../tensor.js";
import { Module } from "./module.js";

/** In training, zeroes each element with probability p and scales the others by 1 / (1 − p). */
export class Dropout extends Module {
  readonly p: number;

  constructor(p = 0.5) {
    super();
    if (!(p >= 0 && p <= 1)) throw new LowrankError("ERR_OPTION", `Dropout: p is a probability, not ${p}`);
    this.p = p;
  }

  forward(x: Tensor): Tensor {
    return this.p > 0 && trains(this) ? x.dropout(this.p) : x;
  }
}
