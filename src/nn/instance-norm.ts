/** Norms of each channel of each example. */
import { checkFlag, checkNumberThat, checkKnownOptions, checkWhole } from "../arguments/check.js";
import { ones, zeros } from "../tensor/create.js";
import type { Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import { noGrad, scope, isTraining } from "../tensor/scope.js";
import { recordOp, makeParameter, type Tensor } from "../tensor/tensor.js";
import { checkInput, refuseMismatch } from "./inputs.js";
import { Module } from "./module.js";

/** The options of an instance norm. */
export interface InstanceNormOptions {
  /** Added to the variance; 1e-5 by default. */
  eps?: number | undefined;
  /** The share of a batch's statistics in the running ones; 0.1 by default. */
  momentum?: number | undefined;
  /** Whether channels have weights and biases; false by default. */
  affine?: boolean | undefined;
  /** Whether running statistics are kept for `eval()`; false by default. */
  trackRunningStats?: boolean | undefined;
  /** The device of the parameters; the default device if omitted. */
  device?: Device | undefined;
}

const OPTIONS = ["eps", "momentum", "affine", "trackRunningStats", "device"] as const;

/**
 * y = (x − mean) / √(var + eps) · w + b, with the mean and variance of each channel of each example (Ulyanov et al.
 * 2016). With `trackRunningStats`, `eval()` uses running averages of the batch means of these statistics, with unbiased
 * variance.
 */
abstract class InstanceNormNd extends Module {
  /** Channels of the input. */
  readonly numFeatures: number;
  /** Added to the variance. */
  readonly eps: number;
  /** The share of a batch in the running statistics. */
  readonly momentum: number;
  /** The scale of each channel; null if there is none. */
  weight: Tensor | null;
  /** The bias; null if there is none. */
  bias: Tensor | null;
  /** Running means of the channels, a buffer [C]; null unless they are kept. */
  declare running_mean: Tensor | null;
  /** Running variances of the channels, a buffer [C]; null unless they are kept. */
  declare running_var: Tensor | null;
  /** For compatibility with PyTorch's files: a buffer that stays 0; null unless statistics are tracked. */
  declare num_batches_tracked: Tensor | null;

  protected constructor(layer: string, numFeatures: number, given: InstanceNormOptions | undefined) {
    super();
    const chosen = checkKnownOptions(layer, given, OPTIONS);
    const { eps = 1e-5, momentum = 0.1, affine = false, trackRunningStats = false, device } = chosen;
    this.numFeatures = checkWhole(layer, "numFeatures", numFeatures, 1);
    this.eps = checkNumberThat(
      layer,
      "eps",
      eps,
      (e) => e >= 0 && Number.isFinite(e),
      "a number of at least 0",
    );
    this.momentum = checkNumberThat(
      layer,
      "momentum",
      momentum,
      (m) => m >= 0 && m <= 1,
      "a number from 0 to 1",
    );
    const shape = [numFeatures];
    this.weight = checkFlag(layer, "affine", affine) ? makeParameter(ones(shape, { device })) : null;
    this.bias = affine ? makeParameter(zeros(shape, { device })) : null;
    const tracks = checkFlag(layer, "trackRunningStats", trackRunningStats);
    this.registerBuffer("running_mean", tracks ? zeros(shape, { device }) : null);
    this.registerBuffer("running_var", tracks ? ones(shape, { device }) : null);
    this.registerBuffer("num_batches_tracked", tracks ? zeros([], { dtype: "i32", device }) : null);
  }

  /** The layer's name, the number of dimensions after the channels, and the shape as text. */
  protected abstract get takes(): readonly [layer: string, dims: number, shape: string];

  /**
   * Shapes: x and y [B, C, L] or [C, L] of `InstanceNorm1d`, [B, C, H, W] or [C, H, W] of `InstanceNorm2d`. Throws
   * `ERR_OPTION`, `ERR_SHAPE_MISMATCH`; the latter for a single value a channel too, which has no variance.
   */
  forward(x: Tensor): Tensor {
    const [layer, dims, shape] = this.takes;
    const rank = checkInput(layer, x).shape.length;
    if (rank === dims + 1) return this.forward(x.unsqueeze(0)).squeeze(0);
    const [B, C, ...rest] = x.shape as [number, number, ...number[]];
    if (rank !== dims + 2 || C !== this.numFeatures)
      refuseMismatch(layer, `${shape} with ${this.numFeatures} channels`, x);
    const S = rest.reduce((n, d) => n * d, 1);
    const { running_mean: mean, running_var: variance } = this;
    const tracks = mean !== null && variance !== null;
    if (tracks && !isTraining(this)) return normaliseByRunning(this, x, mean, variance);
    if (S < 2) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `${layer}: an input of shape [${x.shape.join(", ")}] has ${S} values a channel; a variance takes at least 2`,
      );
    }
    const rows = x.reshape(B * C, S);
    if (tracks) track(this, rows.reshape(B, C, S), mean, variance);
    const plain = recordOp(() => session().layerNorm(rows.id, undefined, undefined, this.eps));
    const { weight, bias } = this;
    if (weight === null || bias === null) return plain.reshape(x.shape);
    return plain.reshape(B, C, S).mul(weight.reshape(C, 1)).add(bias.reshape(C, 1)).reshape(x.shape);
  }
}

function normaliseByRunning(norm: InstanceNormNd, x: Tensor, mean: Tensor, variance: Tensor): Tensor {
  const column = [norm.numFeatures, ...x.shape.slice(2).map(() => 1)];
  const scale = variance.add(norm.eps).rsqrt();
  const factor = norm.weight === null ? scale : norm.weight.mul(scale);
  const centred = x.sub(mean.reshape(column)).mul(factor.reshape(column));
  return norm.bias === null ? centred : centred.add(norm.bias.reshape(column));
}

/** Updates the running statistics from x [B, C, S]. */
function track(norm: InstanceNormNd, x: Tensor, mean: Tensor, variance: Tensor): void {
  noGrad(() =>
    scope(() => {
      for (const [running, measured] of [
        [mean, x.mean(2).mean(0)],
        [variance, x.var(2).mean(0)],
      ] as const)
        running.copy(running.add(measured.sub(running).mul(norm.momentum)));
    }),
  );
}

/** An instance norm over [B, C, L] or [C, L] (Ulyanov et al. 2016). As `torch.nn.InstanceNorm1d`. */
export class InstanceNorm1d extends InstanceNormNd {
  protected get takes() {
    return ["InstanceNorm1d", 1, "[B, C, L] or [C, L]"] as const;
  }

  /** Over `numFeatures` channels. Throws `ERR_OPTION`. */
  constructor(numFeatures: number, given?: InstanceNormOptions) {
    super("InstanceNorm1d", numFeatures, given);
  }
}

/** An instance norm over [B, C, H, W] or [C, H, W] (Ulyanov et al. 2016). As `torch.nn.InstanceNorm2d`. */
export class InstanceNorm2d extends InstanceNormNd {
  protected get takes() {
    return ["InstanceNorm2d", 2, "[B, C, H, W] or [C, H, W]"] as const;
  }

  /** Over `numFeatures` channels. Throws `ERR_OPTION`. */
  constructor(numFeatures: number, given?: InstanceNormOptions) {
    super("InstanceNorm2d", numFeatures, given);
  }
}
