import { session } from "../native.js";
import { made, type Tensor } from "../tensor.js";
import { perDimension, type PerDimension } from "./convolution.js";
import { Module } from "./module.js";

export interface PoolOptions {
  /** The kernel's size unless given. */
  stride?: PerDimension;
  /** On both sides; at most half the kernel. */
  padding?: PerDimension;
  /** Whether a last window may be short, so that nothing of the input is left out. */
  ceilMode?: boolean;
}

/**
 * Windows over the last dimensions. Shapes: x [..., *size], y [..., *out] with
 * out = ⌊(size + 2 · padding − kernel) / stride⌋ + 1, or ⌈ ⌉ under `ceilMode`.
 */
abstract class Pool extends Module {
  readonly kernelSize: readonly number[];
  readonly stride: readonly number[];
  readonly padding: readonly number[];
  readonly ceilMode: boolean;

  protected constructor(
    layer: string,
    dims: number,
    kernelSize: PerDimension,
    { stride = kernelSize, padding = 0, ceilMode = false }: PoolOptions = {},
  ) {
    super();
    this.kernelSize = perDimension(layer, "kernelSize", kernelSize, dims);
    this.stride = perDimension(layer, "stride", stride, dims);
    this.padding = perDimension(layer, "padding", padding, dims, 0);
    this.ceilMode = ceilMode;
  }

  abstract override forward(x: Tensor): Tensor;
}

/** The maximum over windows: NaN where a window holds one; the gradient goes to the first of equals. */
abstract class MaxPoolNd extends Pool {
  forward(x: Tensor): Tensor {
    const { kernelSize, stride, padding, ceilMode } = this;
    return made(() => session().maxPool(x.id, [...kernelSize], [...stride], [...padding], ceilMode));
  }
}

export interface AvgPoolOptions extends PoolOptions {
  /** Whether a mean divides by the padding in its window too. */
  countIncludePad?: boolean;
}

/** The mean over windows. */
abstract class AvgPoolNd extends Pool {
  readonly countIncludePad: boolean;

  protected constructor(layer: string, dims: number, kernelSize: PerDimension, options: AvgPoolOptions = {}) {
    super(layer, dims, kernelSize, options);
    this.countIncludePad = options.countIncludePad ?? true;
  }

  forward(x: Tensor): Tensor {
    const { kernelSize, stride, padding, ceilMode, countIncludePad } = this;
    return made(() =>
      session().avgPool(x.id, [...kernelSize], [...stride], [...padding], ceilMode, countIncludePad),
    );
  }
}

/** Sizes of the output; null keeps the input's. */
export type OutputSize = number | null | readonly (number | null)[];

/** The mean over as many windows as the output has elements, [⌊o·size/out⌋, ⌈(o+1)·size/out⌉) each. */
abstract class AdaptiveAvgPoolNd extends Module {
  readonly outputSize: readonly (number | null)[];

  protected constructor(layer: string, dims: number, outputSize: OutputSize) {
    super();
    const list: readonly (number | null)[] =
      typeof outputSize === "number" || outputSize === null
        ? Array.from({ length: dims }, () => outputSize)
        : outputSize;
    perDimension(
      layer,
      "outputSize",
      list.map((n) => n ?? 1),
      dims,
    );
    this.outputSize = list;
  }

  forward(x: Tensor): Tensor {
    const size = x.shape.slice(-this.outputSize.length);
    return made(() =>
      session().adaptiveAvgPool(
        x.id,
        this.outputSize.map((n, d) => n ?? size[d] ?? 1),
      ),
    );
  }
}

export class MaxPool1d extends MaxPoolNd {
  constructor(kernelSize: PerDimension, options?: PoolOptions) {
    super("MaxPool1d", 1, kernelSize, options);
  }
}

export class MaxPool2d extends MaxPoolNd {
  constructor(kernelSize: PerDimension, options?: PoolOptions) {
    super("MaxPool2d", 2, kernelSize, options);
  }
}

export class MaxPool3d extends MaxPoolNd {
  constructor(kernelSize: PerDimension, options?: PoolOptions) {
    super("MaxPool3d", 3, kernelSize, options);
  }
}

export class AvgPool1d extends AvgPoolNd {
  constructor(kernelSize: PerDimension, options?: AvgPoolOptions) {
    super("AvgPool1d", 1, kernelSize, options);
  }
}

export class AvgPool2d extends AvgPoolNd {
  constructor(kernelSize: PerDimension, options?: AvgPoolOptions) {
    super("AvgPool2d", 2, kernelSize, options);
  }
}

export class AvgPool3d extends AvgPoolNd {
  constructor(kernelSize: PerDimension, options?: AvgPoolOptions) {
    super("AvgPool3d", 3, kernelSize, options);
  }
}

export class AdaptiveAvgPool1d extends AdaptiveAvgPoolNd {
  constructor(outputSize: OutputSize) {
    super("AdaptiveAvgPool1d", 1, outputSize);
  }
}

export class AdaptiveAvgPool2d extends AdaptiveAvgPoolNd {
  constructor(outputSize: OutputSize) {
    super("AdaptiveAvgPool2d", 2, outputSize);
  }
}

export class AdaptiveAvgPool3d extends AdaptiveAvgPoolNd {
  constructor(outputSize: OutputSize) {
    super("AdaptiveAvgPool3d", 3, outputSize);
  }
}
