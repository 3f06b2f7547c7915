import { ones, zeros } from "../create.js";
import type { Device } from "../device.js";
import { LowrankError } from "../errors.js";
import { session } from "../native.js";
import { made, parameter, type Tensor } from "../tensor.js";
import { Module } from "./module.js";

export interface GroupNormOptions {
  eps?: number;
  /** Whether channels have weights and biases. */
  affine?: boolean;
  device?: Device;
}

/**
 * y = (x − mean) / √(var + eps) · w + b, mean and variance being those of a group of channels (Wu and
 * He 2018). Shapes: x and y [B, C, ...], w and b [C].
 */
export class GroupNorm extends Module {
  readonly numGroups: number;
  readonly numChannels: number;
  readonly eps: number;
  weight: Tensor | null;
  bias: Tensor | null;

  constructor(
    numGroups: number,
    numChannels: number,
    { eps = 1e-5, affine = true, device }: GroupNormOptions = {},
  ) {
    super();
    if (!Number.isInteger(numGroups) || numGroups < 1 || numChannels < 1 || numChannels % numGroups !== 0) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `GroupNorm: ${numGroups} groups do not divide ${numChannels} channels evenly`,
      );
    }
    this.numGroups = numGroups;
    this.numChannels = numChannels;
    this.eps = eps;
    const place = device === undefined ? {} : { device };
    this.weight = affine ? parameter(ones([numChannels], place)) : null;
    this.bias = affine ? parameter(zeros([numChannels], place)) : null;
  }

  forward(x: Tensor): Tensor {
    const [B, C, ...rest] = x.shape;
    if (B === undefined || C !== this.numChannels) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `GroupNorm: takes [B, ${this.numChannels}, ...], not a tensor of shape [${x.shape.join(", ")}]`,
      );
    }
    const S = rest.reduce((n, d) => n * d, 1);
    const groups = x.reshape(B * this.numGroups, (C / this.numGroups) * S);
    const plain = made(() => session().layerNorm(groups.id, undefined, undefined, this.eps));
    if (this.weight === null || this.bias === null) return plain.reshape(x.shape);
    const scaled = plain.reshape(B, C, S).mul(this.weight.reshape(C, 1)).add(this.bias.reshape(C, 1));
    return scaled.reshape(x.shape);
  }
}
