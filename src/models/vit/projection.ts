import { session } from "../../native.js";
import { Module } from "../../nn/module.js";
import { made, type Tensor } from "../../tensor.js";
import type { Weights } from "../weights.js";
import type { ViTConfig } from "./config.js";

/**
 * A convolution whose stride is its kernel, as a product over patches. Shapes: x [B, C, H, W],
 * weight [O, C, h, w], y [B, O, H / h, W / w]; what is left at the edges counts for nothing.
 */
export class PatchProjection extends Module {
  readonly patch: readonly [number, number];
  weight: Tensor;
  bias: Tensor;

  constructor({ numChannels, hiddenSize, patchSize }: ViTConfig, path: string, weights: Weights) {
    super();
    this.patch = patchSize;
    this.weight = weights.take(`${path}.weight`, [hiddenSize, numChannels, ...patchSize]);
    this.bias = weights.take(`${path}.bias`, [hiddenSize], "zeros");
  }

  forward(x: Tensor): Tensor {
    const [B, C, H, W] = x.shape as [number, number, number, number];
    const [h, w] = this.patch;
    const [rows, columns] = [Math.floor(H / h), Math.floor(W / w)];
    const patches = x
      .slice(2, 0, rows * h)
      .slice(3, 0, columns * w)
      .reshape(B, C, rows, h, columns, w)
      .permute(0, 2, 4, 1, 3, 5)
      .reshape(B * rows * columns, C * h * w);
    const O = this.weight.shape[0] as number;
    const weight = this.weight.reshape(O, C * h * w);
    const y = made(() => session().linear(patches.id, weight.id, this.bias.id, false));
    return y
      .reshape(B, rows * columns, O)
      .transpose(1, 2)
      .reshape(B, O, rows, columns);
  }
}
