import { checkFlag, checkKnownOptions, refuse, checkWhole } from "../arguments/check.js";
import { drawUniform } from "../tensor/create.js";
import type { Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import { recordOp, makeParameter, type Tensor } from "../tensor/tensor.js";
import { expandPerDimension, type PerDimension } from "./convolution.js";
import { checkInput, refuseMismatch } from "./inputs.js";
import { Module } from "./module.js";

/** The options of a transposed convolution. */
export interface ConvTransposeOptions {
  /** The stride in the output between elements of the input; 1 by default. */
  stride?: PerDimension | undefined;
  /** The part of the full output that is cut off on both sides, from dilation · (kernel − 1); 0 by default. */
  padding?: PerDimension | undefined;
  /** Additional elements at the end, fewer than the stride or the dilation; 0 by default. */
  outputPadding?: PerDimension | undefined;
  /** The dilation: the stride between taps; 1 by default. */
  dilation?: PerDimension | undefined;
  /** Groups of channels, each convolved separately; 1 by default. */
  groups?: number | undefined;
  /** Whether there is a bias; true by default. */
  bias?: boolean | undefined;
  /** The device of the parameters; the default device if omitted. */
  device?: Device | undefined;
}

const OPTIONS = ["stride", "padding", "outputPadding", "dilation", "groups", "bias", "device"] as const;

/**
 * A transposed convolution: the gradient of a convolution's input, as a layer (Dumoulin and Visin 2016). Shapes: W
 * [in, out / groups, *kernel], b [out]; both start as U(±1/√(out / groups · ∏ kernel)), as in PyTorch.
 */
abstract class ConvTransposeNd extends Module {
  /** Channels of the input. */
  readonly inChannels: number;
  /** Channels of the output. */
  readonly outChannels: number;
  /** Elements of the kernel, one entry per dimension. */
  readonly kernelSize: readonly number[];
  /** The stride between windows, one entry per dimension. */
  readonly stride: readonly number[];
  /** Elements on both sides, one entry per dimension. */
  readonly padding: readonly number[];
  /** Additional elements at the end, one entry per dimension. */
  readonly outputPadding: readonly number[];
  /** The dilation: the stride between taps, one entry per dimension. */
  readonly dilation: readonly number[];
  /** Groups of channels. */
  readonly groups: number;
  /** The kernel, [in, out / groups, *kernel]. */
  weight: Tensor;
  /** The bias; null if there is none. */
  bias: Tensor | null;

  protected constructor(
    dims: 1 | 2,
    inChannels: number,
    outChannels: number,
    kernelSize: PerDimension,
    given: ConvTransposeOptions | undefined,
  ) {
    super();
    const layer = `ConvTranspose${dims}d`;
    const chosen = checkKnownOptions(layer, given, OPTIONS);
    const {
      stride = 1,
      padding = 0,
      outputPadding = 0,
      dilation = 1,
      groups = 1,
      bias = true,
      device,
    } = chosen;
    this.inChannels = checkWhole(layer, "inChannels", inChannels, 1);
    this.outChannels = checkWhole(layer, "outChannels", outChannels, 1);
    this.kernelSize = expandPerDimension(layer, "kernelSize", kernelSize, dims);
    this.stride = expandPerDimension(layer, "stride", stride, dims);
    this.padding = expandPerDimension(layer, "padding", padding, dims, 0);
    this.outputPadding = expandPerDimension(layer, "outputPadding", outputPadding, dims, 0);
    this.dilation = expandPerDimension(layer, "dilation", dilation, dims);
    this.groups = checkWhole(layer, "groups", groups, 1);
    if (inChannels % groups !== 0 || outChannels % groups !== 0) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `${layer}: ${groups} groups do not divide ${inChannels} channels in and ${outChannels} out evenly`,
      );
    }
    for (const [d, extra] of this.outputPadding.entries()) {
      const [s, dilated] = [this.stride[d] as number, this.dilation[d] as number];
      if (extra >= Math.max(s, dilated))
        refuse(layer, "outputPadding", `below the stride ${s} or the dilation ${dilated}`, outputPadding);
    }
    const bound = 1 / Math.sqrt(this.kernelSize.reduce((n, k) => n * k, outChannels / groups));
    const draw = (...shape: number[]): Tensor => makeParameter(drawUniform(shape, -bound, bound, { device }));
    this.weight = draw(inChannels, outChannels / groups, ...this.kernelSize);
    this.bias = checkFlag(layer, "bias", bias) ? draw(outChannels) : null;
  }

  /**
   * Shapes: x [B, in, *size] or [in, *size], y likewise with `out` channels and (size − 1) · stride − 2 · padding +
   * dilation · (kernel − 1) + outputPadding + 1 elements a dimension. `outputSize` chooses among the sizes that a
   * stride leaves open, instead of `outputPadding`. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`.
   */
  forward(x: Tensor, outputSize?: PerDimension): Tensor {
    const dims = this.stride.length;
    const layer = `ConvTranspose${dims}d`;
    checkInput(layer, x);
    if (x.shape.length === dims + 1) return this.forward(x.unsqueeze(0), outputSize).squeeze(0);
    const size = x.shape.slice(2);
    if (x.shape.length !== dims + 2 || x.shape[1] !== this.inChannels)
      refuseMismatch(layer, `[B, ${this.inChannels}, ${["L", "H, W"][dims - 1]}]`, x);
    const extra =
      outputSize === undefined ? this.outputPadding : computeOutputPadding(layer, this, size, outputSize);
    const { weight, bias, stride, padding, dilation, groups } = this;
    const sides = padding.flatMap((p) => [p, p]);
    const y = recordOp(() =>
      session().convTranspose(x.id, weight.id, [...stride], sides, [...extra], [...dilation], groups),
    );
    return bias === null ? y : y.add(bias.reshape([this.outChannels, ...size.map(() => 1)]));
  }
}

/** The output padding for `outputSize`. */
function computeOutputPadding(
  layer: string,
  { stride, padding, dilation, kernelSize }: ConvTransposeNd,
  size: readonly number[],
  outputSize: PerDimension,
): number[] {
  const requested = expandPerDimension(layer, "outputSize", outputSize, size.length);
  return requested.map((out, d) => {
    const [s, p, dilated, k] = [stride, padding, dilation, kernelSize].map((list) => list[d] as number) as [
      number,
      number,
      number,
      number,
    ];
    const least = ((size[d] as number) - 1) * s - 2 * p + dilated * (k - 1) + 1;
    if (out >= least && out < least + s) return out - least;
    return refuse(layer, "outputSize", `${least} to ${least + s - 1} in dimension ${d + 2}`, out);
  });
}

/** A transposed convolution, the gradient of a convolution's input as a layer, over one dimension: x [B, in, L]. As `torch.nn.ConvTranspose1d`. */
export class ConvTranspose1d extends ConvTransposeNd {
  /**
   * From `inChannels` to `outChannels`, by a kernel of `kernelSize` elements, one number for every dimension or one for
   * each. W [in, out / groups, *kernel] and b [out] start as U(±1/√(out / groups · ∏ kernel)). Throws `ERR_OPTION`;
   * `ERR_SHAPE_MISMATCH` for groups that do not divide the channels.
   */
  constructor(
    inChannels: number,
    outChannels: number,
    kernelSize: PerDimension,
    given?: ConvTransposeOptions,
  ) {
    super(1, inChannels, outChannels, kernelSize, given);
  }
}

/** A transposed convolution, the gradient of a convolution's input as a layer, over two dimensions: x [B, in, H, W]. As `torch.nn.ConvTranspose2d`. */
export class ConvTranspose2d extends ConvTransposeNd {
  /**
   * From `inChannels` to `outChannels`, by a kernel of `kernelSize` elements, one number for every dimension or one for
   * each. W [in, out / groups, *kernel] and b [out] start as U(±1/√(out / groups · ∏ kernel)). Throws `ERR_OPTION`;
   * `ERR_SHAPE_MISMATCH` for groups that do not divide the channels.
   */
  constructor(
    inChannels: number,
    outChannels: number,
    kernelSize: PerDimension,
    given?: ConvTransposeOptions,
  ) {
    super(2, inChannels, outChannels, kernelSize, given);
  }
}
