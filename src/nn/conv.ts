import { tensor } from "../create.js";
import type { Device } from "../device.js";
import { LowrankError } from "../errors.js";
import { uniform } from "../random.js";
import { parameter, type Tensor } from "../tensor.js";
import {
  convGeometry,
  convolve,
  perDimension,
  type ConvGeometry,
  type GeometryOptions,
  type PerDimension,
} from "./convolution.js";
import { Module } from "./module.js";
import { checkRoom } from "./room.js";

export interface ConvOptions extends GeometryOptions {
  bias?: boolean;
  device?: Device;
  /** Values to use as they are, instead of drawing new ones. */
  weight?: Tensor;
  biasValues?: Tensor;
}

/**
 * y = W ⋆ x + b. Shapes: x [B, in, *size] or [in, *size], W [out, in / groups, *kernel], b [out]. W and
 * b start as U(±1/√(in / groups · ∏ kernel)), as PyTorch's. Groups must divide both numbers of channels.
 */
export abstract class ConvNd extends Module {
  readonly inChannels: number;
  readonly outChannels: number;
  readonly kernelSize: readonly number[];
  readonly geometry: ConvGeometry;
  weight: Tensor;
  bias: Tensor | null;

  protected constructor(
    dims: 1 | 2 | 3,
    inChannels: number,
    outChannels: number,
    kernelSize: PerDimension,
    options: ConvOptions = {},
  ) {
    super();
    const layer = `Conv${dims}d`;
    const kernel = perDimension(layer, "kernelSize", kernelSize, dims);
    this.inChannels = inChannels;
    this.outChannels = outChannels;
    this.kernelSize = kernel;
    this.geometry = convGeometry(layer, kernel, options);
    const { groups } = this.geometry;
    if (inChannels % groups !== 0 || outChannels % groups !== 0 || inChannels < 1 || outChannels < 1) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `${layer}: ${groups} groups do not divide ${inChannels} channels in and ${outChannels} out evenly`,
      );
    }
    const fan = kernel.reduce((n, k) => n * k, inChannels / groups);
    const bound = 1 / Math.sqrt(fan);
    const draw = (shape: number[]): Tensor => {
      const size = shape.reduce((n, d) => n * d, 1);
      checkRoom(layer, options.device, size);
      const place = options.device === undefined ? {} : { device: options.device };
      return parameter(tensor(uniform(size, -bound, bound), { shape, ...place }));
    };
    this.weight = options.weight ?? draw([outChannels, inChannels / groups, ...kernel]);
    this.bias = options.biasValues ?? (options.bias === false || options.weight ? null : draw([outChannels]));
  }

  forward(x: Tensor): Tensor {
    return convolve(x, this.weight, this.bias, this.geometry);
  }
}

/** Over one dimension: x [B, in, L]. */
export class Conv1d extends ConvNd {
  constructor(inChannels: number, outChannels: number, kernelSize: PerDimension, options?: ConvOptions) {
    super(1, inChannels, outChannels, kernelSize, options);
  }
}

/** Over two dimensions: x [B, in, H, W]. */
export class Conv2d extends ConvNd {
  constructor(inChannels: number, outChannels: number, kernelSize: PerDimension, options?: ConvOptions) {
    super(2, inChannels, outChannels, kernelSize, options);
  }
}

/** Over three dimensions: x [B, in, D, H, W]. */
export class Conv3d extends ConvNd {
  constructor(inChannels: number, outChannels: number, kernelSize: PerDimension, options?: ConvOptions) {
    super(3, inChannels, outChannels, kernelSize, options);
  }
}
