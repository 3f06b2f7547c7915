import { checkFlag, checkNumberThat, checkKnownOptions, checkWhole } from "../arguments/check.js";
import { ones, zeros } from "../tensor/create.js";
import type { Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import { recordOp, makeParameter, type Tensor } from "../tensor/tensor.js";
import { checkInput, refuseMismatch } from "./inputs.js";
import { Module } from "./module.js";

/** The options of `GroupNorm`. */
export interface GroupNormOptions {
  /** Added to the variance; 1e-5 by default. */
  eps?: number | undefined;
  /** Whether channels have weights and biases; true by default. */
  affine?: boolean | undefined;
  /** The device of the parameters; the default device if omitted. */
  device?: Device | undefined;
}

/**
 * y = (x − mean) / √(var + eps) · w + b, with the mean and variance of each group of channels (Wu and He 2018). Shapes: x and y
 * [B, C, ...], w and b [C]. As `torch.nn.GroupNorm`.
 */
export class GroupNorm extends Module {
  /** Groups of channels, each normalised separately. */
  readonly numGroups: number;
  /** Channels of the input. */
  readonly numChannels: number;
  /** Added to the variance. */
  readonly eps: number;
  /** The scale of each feature or channel; null if there is none. */
  weight: Tensor | null;
  /** The bias; null if there is none. */
  bias: Tensor | null;

  /** Over `numChannels` channels in `numGroups` groups. Throws `ERR_OPTION`; `ERR_SHAPE_MISMATCH` for groups that do not divide them. */
  constructor(numGroups: number, numChannels: number, given?: GroupNormOptions) {
    super();
    const {
      eps = 1e-5,
      affine = true,
      device,
    } = checkKnownOptions("GroupNorm", given, ["eps", "affine", "device"]);
    checkWhole("GroupNorm", "numGroups", numGroups, 1);
    checkWhole("GroupNorm", "numChannels", numChannels, 1);
    checkNumberThat("GroupNorm", "eps", eps, (e) => e >= 0, "a number of at least 0");
    checkFlag("GroupNorm", "affine", affine);
    if (numChannels % numGroups !== 0) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `GroupNorm: ${numGroups} groups do not divide ${numChannels} channels evenly`,
      );
    }
    this.numGroups = numGroups;
    this.numChannels = numChannels;
    this.eps = eps;
    this.weight = affine ? makeParameter(ones([numChannels], { device })) : null;
    this.bias = affine ? makeParameter(zeros([numChannels], { device })) : null;
  }

  /** Shapes: x and y [B, C, ...]. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`. */
  forward(x: Tensor): Tensor {
    const [B, C, ...rest] = checkInput("GroupNorm", x).shape;
    if (B === undefined || C !== this.numChannels)
      refuseMismatch("GroupNorm", `[B, ${this.numChannels}, ...]`, x);
    const S = rest.reduce((n, d) => n * d, 1);
    const groups = x.reshape(B * this.numGroups, (C / this.numGroups) * S);
    const plain = recordOp(() => session().layerNorm(groups.id, undefined, undefined, this.eps));
    if (this.weight === null || this.bias === null) return plain.reshape(x.shape);
    const scaled = plain.reshape(B, C, S).mul(this.weight.reshape(C, 1)).add(this.bias.reshape(C, 1));
    return scaled.reshape(x.shape);
  }
}
