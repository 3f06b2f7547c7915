import { checkFlag, checkKnownOptions } from "../arguments/check.js";
import { session } from "../native/binding.js";
import { recordOp, type Tensor } from "../tensor/tensor.js";
import { expandPerDimension, type PerDimension } from "./convolution.js";
import { checkInput } from "./inputs.js";
import { Module } from "./module.js";

/** The options of pooling. */
export interface PoolOptions {
  /** The stride between windows; the kernel's size by default. */
  stride?: PerDimension | undefined;
  /** Padding on both sides, at most half of the kernel; 0 by default. */
  padding?: PerDimension | undefined;
  /** Whether a last, shorter window covers the rest of the input; false by default. */
  ceilMode?: boolean | undefined;
}

const OPTIONS = ["stride", "padding", "ceilMode"] as const;

/**
 * Windows over the last dimensions. Shapes: x [..., *size], y [..., *out] with
 * out = ⌊(size + 2 · padding − kernel) / stride⌋ + 1, or ⌈ ⌉ under `ceilMode`.
 */
abstract class Pool extends Module {
  /** Elements of the kernel, one entry per dimension. */
  readonly kernelSize: readonly number[];
  /** The stride between windows, one entry per dimension. */
  readonly stride: readonly number[];
  /** Elements on both sides, one entry per dimension. */
  readonly padding: readonly number[];
  /** Whether a last window may be shorter. */
  readonly ceilMode: boolean;

  protected constructor(layer: string, dims: number, kernelSize: PerDimension, given: PoolOptions = {}) {
    super();
    const { stride = kernelSize, padding = 0, ceilMode = false } = given;
    this.kernelSize = expandPerDimension(layer, "kernelSize", kernelSize, dims);
    this.stride = expandPerDimension(layer, "stride", stride, dims);
    this.padding = expandPerDimension(layer, "padding", padding, dims, 0);
    this.ceilMode = checkFlag(layer, "ceilMode", ceilMode);
  }

  abstract override forward(x: Tensor): Tensor;
}

/** The maximum over windows: NaN if a window contains NaN; the gradient goes to the first of equal values. */
abstract class MaxPoolNd extends Pool {
  /**
   * Shapes: x [..., *size], y [..., *out] with out = ⌊(size + 2 · padding − kernel) / stride⌋ + 1, or ⌈ ⌉ under `ceilMode`.
   * NaN where a window holds one; the gradient goes to the first of equals. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`,
   * `ERR_DTYPE`.
   */
  forward(x: Tensor): Tensor {
    checkInput(`MaxPool${this.kernelSize.length}d`, x);
    const { kernelSize, stride, padding, ceilMode } = this;
    return recordOp(() => session().maxPool(x.id, [...kernelSize], [...stride], [...padding], ceilMode));
  }
}

/** The options of mean pooling. */
export interface AvgPoolOptions extends PoolOptions {
  /** Whether the mean's divisor includes padding; true by default. */
  countIncludePad?: boolean | undefined;
}

const AVG_OPTIONS = [...OPTIONS, "countIncludePad"] as const;

/** The mean over windows. */
abstract class AvgPoolNd extends Pool {
  /** Whether the mean's divisor includes padding. */
  readonly countIncludePad: boolean;

  protected constructor(layer: string, dims: number, kernelSize: PerDimension, given: AvgPoolOptions = {}) {
    super(layer, dims, kernelSize, given);
    this.countIncludePad = checkFlag(layer, "countIncludePad", given.countIncludePad ?? true);
  }

  /**
   * Shapes: x [..., *size], y [..., *out] with out = ⌊(size + 2 · padding − kernel) / stride⌋ + 1, or ⌈ ⌉ under `ceilMode`.
   * Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`.
   */
  forward(x: Tensor): Tensor {
    checkInput(`AvgPool${this.kernelSize.length}d`, x);
    const { kernelSize, stride, padding, ceilMode, countIncludePad } = this;
    return recordOp(() =>
      session().avgPool(x.id, [...kernelSize], [...stride], [...padding], ceilMode, countIncludePad),
    );
  }
}

/** Sizes of the output; null keeps the input's. */
export type OutputSize = number | null | readonly (number | null)[];

/** The mean over windows [⌊o·size/out⌋, ⌈(o+1)·size/out⌉), one for each element of the output. */
abstract class AdaptiveAvgPoolNd extends Module {
  /** Sizes of the output; null keeps the input's. */
  readonly outputSize: readonly (number | null)[];

  protected constructor(layer: string, dims: number, outputSize: OutputSize) {
    super();
    const list: readonly (number | null)[] =
      typeof outputSize === "number" || outputSize === null
        ? Array.from({ length: dims }, () => outputSize)
        : outputSize;
    const sizes = Array.isArray(list) ? list.map((n: number | null) => n ?? 1) : list;
    expandPerDimension(layer, "outputSize", sizes as PerDimension, dims);
    this.outputSize = list;
  }

  /** Shapes: x [..., *size], y [..., *outputSize]. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`. */
  forward(x: Tensor): Tensor {
    checkInput(`AdaptiveAvgPool${this.outputSize.length}d`, x);
    const size = x.shape.slice(-this.outputSize.length);
    return recordOp(() =>
      session().adaptiveAvgPool(
        x.id,
        this.outputSize.map((n, d) => n ?? size[d] ?? 1),
      ),
    );
  }
}

/** The maximum over windows of one dimension. As `torch.nn.MaxPool1d`. */
export class MaxPool1d extends MaxPoolNd {
  /** Over windows of `kernelSize` elements, one number for all dimensions, or one per dimension. Throws `ERR_OPTION`. */
  constructor(kernelSize: PerDimension, given?: PoolOptions) {
    super("MaxPool1d", 1, kernelSize, checkKnownOptions("MaxPool1d", given, OPTIONS));
  }
}

/** The maximum over windows of two dimensions. As `torch.nn.MaxPool2d`. */
export class MaxPool2d extends MaxPoolNd {
  /** Over windows of `kernelSize` elements, one number for all dimensions, or one per dimension. Throws `ERR_OPTION`. */
  constructor(kernelSize: PerDimension, given?: PoolOptions) {
    super("MaxPool2d", 2, kernelSize, checkKnownOptions("MaxPool2d", given, OPTIONS));
  }
}

/** The maximum over windows of three dimensions. As `torch.nn.MaxPool3d`. */
export class MaxPool3d extends MaxPoolNd {
  /** Over windows of `kernelSize` elements, one number for all dimensions, or one per dimension. Throws `ERR_OPTION`. */
  constructor(kernelSize: PerDimension, given?: PoolOptions) {
    super("MaxPool3d", 3, kernelSize, checkKnownOptions("MaxPool3d", given, OPTIONS));
  }
}

/** The mean over windows of one dimension. As `torch.nn.AvgPool1d`. */
export class AvgPool1d extends AvgPoolNd {
  /** Over windows of `kernelSize` elements, one number for all dimensions, or one per dimension. Throws `ERR_OPTION`. */
  constructor(kernelSize: PerDimension, given?: AvgPoolOptions) {
    super("AvgPool1d", 1, kernelSize, checkKnownOptions("AvgPool1d", given, AVG_OPTIONS));
  }
}

/** The mean over windows of two dimensions. As `torch.nn.AvgPool2d`. */
export class AvgPool2d extends AvgPoolNd {
  /** Over windows of `kernelSize` elements, one number for all dimensions, or one per dimension. Throws `ERR_OPTION`. */
  constructor(kernelSize: PerDimension, given?: AvgPoolOptions) {
    super("AvgPool2d", 2, kernelSize, checkKnownOptions("AvgPool2d", given, AVG_OPTIONS));
  }
}

/** The mean over windows of three dimensions. As `torch.nn.AvgPool3d`. */
export class AvgPool3d extends AvgPoolNd {
  /** Over windows of `kernelSize` elements, one number for all dimensions, or one per dimension. Throws `ERR_OPTION`. */
  constructor(kernelSize: PerDimension, given?: AvgPoolOptions) {
    super("AvgPool3d", 3, kernelSize, checkKnownOptions("AvgPool3d", given, AVG_OPTIONS));
  }
}

/** The mean over as many windows as the output has elements. As `torch.nn.AdaptiveAvgPool1d`. */
export class AdaptiveAvgPool1d extends AdaptiveAvgPoolNd {
  /** Of `outputSize` elements, one number for all dimensions, or one per dimension. Throws `ERR_OPTION`. */
  constructor(outputSize: OutputSize) {
    super("AdaptiveAvgPool1d", 1, outputSize);
  }
}

/** The mean over as many windows as the output has elements. As `torch.nn.AdaptiveAvgPool2d`. */
export class AdaptiveAvgPool2d extends AdaptiveAvgPoolNd {
  /** Of `outputSize` elements, one number for all dimensions, or one per dimension. Throws `ERR_OPTION`. */
  constructor(outputSize: OutputSize) {
    super("AdaptiveAvgPool2d", 2, outputSize);
  }
}

/** The mean over as many windows as the output has elements. As `torch.nn.AdaptiveAvgPool3d`. */
export class AdaptiveAvgPool3d extends AdaptiveAvgPoolNd {
  /** Of `outputSize` elements, one number for all dimensions, or one per dimension. Throws `ERR_OPTION`. */
  constructor(outputSize: OutputSize) {
    super("AdaptiveAvgPool3d", 3, outputSize);
  }
}
