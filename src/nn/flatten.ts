import { checkNumberThat } from "../arguments/check.js";
import type { Tensor } from "../tensor/tensor.js";
import { checkInput } from "./inputs.js";
import { Module } from "./module.js";

/** Merges dimensions `startDim` to `endDim`. As `torch.nn.Flatten`. */
export class Flatten extends Module {
  /** The first dimension that is merged. */
  readonly startDim: number;
  /** The last one. */
  readonly endDim: number;

  /** Both dimensions count, and negative ones count from the end: all but the first by default. Throws `ERR_OPTION`. */
  constructor(startDim = 1, endDim = -1) {
    super();
    const place = (name: string, value: unknown): number =>
      checkNumberThat("Flatten", name, value, Number.isInteger, "a whole number");
    this.startDim = place("startDim", startDim);
    this.endDim = place("endDim", endDim);
  }

  /** Shapes: x [B, ...], y [B, ∏ ...] by default. Throws `ERR_SHAPE_MISMATCH` for dimensions that x does not have. */
  forward(x: Tensor): Tensor {
    return checkInput("Flatten", x).flatten(this.startDim, this.endDim);
  }
}
