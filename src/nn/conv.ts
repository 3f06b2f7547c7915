import { checkFlag, checkNumberThat, checkKnownOptions, checkWhole } from "../arguments/check.js";
import { tensor } from "../tensor/create.js";
import type { Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import { drawUniformValues } from "../tensor/random.js";
import { makeParameter, type Tensor } from "../tensor/tensor.js";
import {
  readGeometry,
  convolve,
  expandPerDimension,
  type ConvGeometry,
  type GeometryOptions,
  type PerDimension,
} from "./convolution.js";
import { checkInput, refuseMismatch, checkValues } from "./inputs.js";
import { Module } from "./module.js";
import { checkRoom } from "./room.js";

/** The options of a convolution. */
export interface ConvOptions extends GeometryOptions {
  /** Whether there is a bias; true by default, unless `weight` is given. */
  bias?: boolean | undefined;
  /** The device of the parameters; the default device if omitted. */
  device?: Device | undefined;
  /** A kernel to use instead of a random one; without `biasValues` there is no bias then. */
  weight?: Tensor | undefined;
  /** A bias [out] to use, whatever `bias` says. */
  biasValues?: Tensor | undefined;
}

const OPTIONS = [
  "stride",
  "padding",
  "dilation",
  "groups",
  "paddingMode",
  "bias",
  "device",
  "weight",
  "biasValues",
] as const;

/**
 * y = W ⋆ x + b. Shapes: x [B, in, *size] or [in, *size], W [out, in / groups, *kernel], b [out]. W and b start as
 * U(±1/√(in / groups · ∏ kernel)), as in PyTorch. Groups must divide both numbers of channels.
 */
export abstract class ConvNd extends Module {
  /** Channels of the input. */
  readonly inChannels: number;
  /** Channels of the output. */
  readonly outChannels: number;
  /** Elements of the kernel, one entry per dimension. */
  readonly kernelSize: readonly number[];
  /** Stride, padding, dilation and groups. */
  readonly geometry: ConvGeometry;
  /** The kernel, [out, in / groups, *kernel]. */
  weight: Tensor;
  /** The bias; null if there is none. */
  bias: Tensor | null;

  /** Over `dims` dimensions. Throws the errors of its subclasses. */
  protected constructor(
    dims: 1 | 2 | 3,
    inChannels: number,
    outChannels: number,
    kernelSize: PerDimension,
    given: ConvOptions = {},
  ) {
    super();
    checkNumberThat("ConvNd", "dims", dims, (n) => n === 1 || n === 2 || n === 3, "1, 2 or 3");
    const layer = `Conv${dims}d`;
    const { bias = true, device, weight, biasValues } = given;
    checkWhole(layer, "inChannels", inChannels, 1);
    checkWhole(layer, "outChannels", outChannels, 1);
    checkFlag(layer, "bias", bias);
    const kernel = expandPerDimension(layer, "kernelSize", kernelSize, dims);
    this.inChannels = inChannels;
    this.outChannels = outChannels;
    this.kernelSize = kernel;
    this.geometry = readGeometry(layer, kernel, given);
    const { groups } = this.geometry;
    if (inChannels % groups !== 0 || outChannels % groups !== 0) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `${layer}: ${groups} groups do not divide ${inChannels} channels in and ${outChannels} out evenly`,
      );
    }
    const fan = kernel.reduce((n, k) => n * k, inChannels / groups);
    const bound = 1 / Math.sqrt(fan);
    const draw = (shape: number[]): Tensor => {
      const size = shape.reduce((n, d) => n * d, 1);
      checkRoom(layer, device, size);
      return makeParameter(tensor(drawUniformValues(size, -bound, bound), { shape, device }));
    };
    const shape = [outChannels, inChannels / groups, ...kernel];
    this.weight = weight === undefined ? draw(shape) : checkValues(layer, "weight", weight, shape);
    if (biasValues !== undefined) this.bias = checkValues(layer, "biasValues", biasValues, [outChannels]);
    else this.bias = bias && weight === undefined ? draw([outChannels]) : null;
  }

  /**
   * Shapes: x [B, in, *size] or [in, *size], y likewise with `out` channels and ⌊(size + padding − dilation ·
   * (kernel − 1) − 1) / stride⌋ + 1 elements a dimension. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`.
   */
  forward(x: Tensor): Tensor {
    checkConvInput(`Conv${this.kernelSize.length}d`, this, x);
    return convolve(x, this.weight, this.bias, this.geometry);
  }
}

/** Checks the input of a convolution, with or without a batch dimension. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`. */
export function checkConvInput(where: string, { kernelSize, inChannels }: ConvNd, x: Tensor): void {
  const dims = kernelSize.length;
  checkInput(where, x);
  if (x.shape.length >= dims + 1 && x.shape.length <= dims + 2) return;
  const size = ["L", "H, W", "D, H, W"][dims - 1] as string;
  refuseMismatch(
    where,
    `[B, ${inChannels}, ${size}] or [${inChannels}, ${size}], of ${dims + 2} or ${dims + 1} dimensions`,
    x,
  );
}

/** A convolution over one dimension: x [B, in, L]. As `torch.nn.Conv1d`. */
export class Conv1d extends ConvNd {
  /**
   * From `inChannels` to `outChannels`, by a kernel of `kernelSize` elements, one number for every dimension or one for
   * each. Throws `ERR_OPTION`; `ERR_SHAPE_MISMATCH` for groups that do not divide the channels and for values that do not
   * fit; `ERR_OUT_OF_MEMORY`.
   */
  constructor(inChannels: number, outChannels: number, kernelSize: PerDimension, given?: ConvOptions) {
    // Subclasses check their own options.
    const chosen = new.target === Conv1d ? checkKnownOptions("Conv1d", given, OPTIONS) : given;
    super(1, inChannels, outChannels, kernelSize, chosen);
  }
}

/** A convolution over two dimensions: x [B, in, H, W]. As `torch.nn.Conv2d`. */
export class Conv2d extends ConvNd {
  /**
   * From `inChannels` to `outChannels`, by a kernel of `kernelSize` elements, one number for every dimension or one for
   * each. Throws `ERR_OPTION`; `ERR_SHAPE_MISMATCH` for groups that do not divide the channels and for values that do not
   * fit; `ERR_OUT_OF_MEMORY`.
   */
  constructor(inChannels: number, outChannels: number, kernelSize: PerDimension, given?: ConvOptions) {
    // Subclasses check their own options.
    const chosen = new.target === Conv2d ? checkKnownOptions("Conv2d", given, OPTIONS) : given;
    super(2, inChannels, outChannels, kernelSize, chosen);
  }
}

/** A convolution over three dimensions: x [B, in, D, H, W]. As `torch.nn.Conv3d`. */
export class Conv3d extends ConvNd {
  /**
   * From `inChannels` to `outChannels`, by a kernel of `kernelSize` elements, one number for every dimension or one for
   * each. Throws `ERR_OPTION`; `ERR_SHAPE_MISMATCH` for groups that do not divide the channels and for values that do not
   * fit; `ERR_OUT_OF_MEMORY`.
   */
  constructor(inChannels: number, outChannels: number, kernelSize: PerDimension, given?: ConvOptions) {
    // Subclasses check their own options.
    const chosen = new.target === Conv3d ? checkKnownOptions("Conv3d", given, OPTIONS) : given;
    super(3, inChannels, outChannels, kernelSize, chosen);
  }
}
