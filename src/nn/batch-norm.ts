import { checkFlag, checkNumberThat, checkKnownOptions, checkWhole } from "../arguments/check.js";
import { ones, zeros } from "../tensor/create.js";
import type { Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import { noGrad, scope, isTraining } from "../tensor/scope.js";
import { recordOp, makeParameter, type Tensor } from "../tensor/tensor.js";
import { checkInput, refuseMismatch } from "./inputs.js";
import { Module } from "./module.js";

/** The options of a batch norm. */
export interface BatchNormOptions {
  /** Added to the variance; 1e-5 by default. */
  eps?: number | undefined;
  /** The weight of a batch's statistics in the running ones, 0.1 by default; null makes these plain means. */
  momentum?: number | null | undefined;
  /** Whether channels have weights and biases; true by default. */
  affine?: boolean | undefined;
  /** Whether to track running statistics for `eval()`; without them, each batch is normalised by its statistics. */
  trackRunningStats?: boolean | undefined;
  /** The device of the parameters; the default device if omitted. */
  device?: Device | undefined;
}

const OPTIONS = ["eps", "momentum", "affine", "trackRunningStats", "device"] as const;

/**
 * y = (x − mean) / √(var + eps) · w + b, with a channel's mean and variance over the batch in training and running
 * statistics in `eval()` (Ioffe and Szegedy 2015). The running variance is unbiased. A training step updates the
 * buffers running_mean [C], running_var [C] and num_batches_tracked [] once, also inside a `checkpoint`. As
 * `torch.nn.BatchNorm1d` and `BatchNorm2d`.
 */
abstract class BatchNormNd extends Module {
  /** Channels of the input. */
  readonly numFeatures: number;
  /** Added to the variance. */
  readonly eps: number;
  /** The weight of a batch in the running statistics; null for plain means. */
  readonly momentum: number | null;
  /** The scale of each feature or channel; null if there is none. */
  weight: Tensor | null;
  /** The bias; null if there is none. */
  bias: Tensor | null;
  /** Running means of the channels, a buffer [C]. */
  declare running_mean: Tensor | null;
  /** Running variances of the channels, a buffer [C]. */
  declare running_var: Tensor | null;
  /** How many batches the running statistics have seen, i32. */
  declare num_batches_tracked: Tensor | null;

  protected constructor(layer: string, numFeatures: number, given: BatchNormOptions | undefined) {
    super();
    const chosen = checkKnownOptions(layer, given, OPTIONS);
    const { eps = 1e-5, momentum = 0.1, affine = true, trackRunningStats = true, device } = chosen;
    this.numFeatures = checkWhole(layer, "numFeatures", numFeatures, 1);
    this.eps = checkNumberThat(
      layer,
      "eps",
      eps,
      (e) => e >= 0 && Number.isFinite(e),
      "a number of at least 0",
    );
    const share = (m: number): boolean => m >= 0 && m <= 1;
    this.momentum =
      momentum === null
        ? null
        : checkNumberThat(layer, "momentum", momentum, share, "null or a number from 0 to 1");
    const shape = [numFeatures];
    this.weight = checkFlag(layer, "affine", affine) ? makeParameter(ones(shape, { device })) : null;
    this.bias = affine ? makeParameter(zeros(shape, { device })) : null;
    const tracks = checkFlag(layer, "trackRunningStats", trackRunningStats);
    this.registerBuffer("running_mean", tracks ? zeros(shape, { device }) : null);
    this.registerBuffer("running_var", tracks ? ones(shape, { device }) : null);
    this.registerBuffer("num_batches_tracked", tracks ? zeros([], { dtype: "i32", device }) : null);
  }

  /** The layer's name, the allowed numbers of dimensions of an input, and the shape as text. */
  protected abstract get takes(): readonly [layer: string, least: number, most: number, shape: string];

  /**
   * Shapes: x and y [B, C] or [B, C, L] of `BatchNorm1d`, [B, C, H, W] of `BatchNorm2d`. Throws `ERR_OPTION`,
   * `ERR_SHAPE_MISMATCH`; the latter in training for a single value a channel, too.
   */
  forward(x: Tensor): Tensor {
    const [layer, least, most, shape] = this.takes;
    checkInput(layer, x);
    const [B, C, ...rest] = x.shape;
    const rank = x.shape.length;
    if (B === undefined || C !== this.numFeatures || rank < least || rank > most)
      refuseMismatch(layer, `${shape} with ${this.numFeatures} channels`, x);
    const S = rest.reduce((n, d) => n * d, 1);
    const { running_mean: mean, running_var: variance } = this;
    const training = isTraining(this);
    if (!training && mean !== null && variance !== null) return normaliseByRunning(this, x, mean, variance);
    if (B * S < 2 && training) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `${layer}: a batch of shape [${x.shape.join(", ")}] has ${B * S} values a channel; in training there are at least 2`,
      );
    }
    // Each channel's values are a row, which the layer-norm kernel normalises.
    const rows = x
      .reshape(B, C, S)
      .transpose(0, 1)
      .reshape(C, B * S);
    if (training) track(this, rows);
    const plain = recordOp(() => session().layerNorm(rows.id, undefined, undefined, this.eps));
    const { weight, bias } = this;
    const scaled =
      weight === null || bias === null ? plain : plain.mul(weight.reshape(C, 1)).add(bias.reshape(C, 1));
    return scaled.reshape(C, B, S).transpose(0, 1).reshape(x.shape);
  }
}

function normaliseByRunning(norm: BatchNormNd, x: Tensor, mean: Tensor, variance: Tensor): Tensor {
  const deviation = variance.add(norm.eps).sqrt();
  const scale = norm.weight === null ? deviation.pow(-1) : norm.weight.div(deviation);
  const column = [norm.numFeatures, ...x.shape.slice(2).map(() => 1)];
  const centred = x.sub(mean.reshape(column)).mul(scale.reshape(column));
  return norm.bias === null ? centred : centred.add(norm.bias.reshape(column));
}

/** Updates the running statistics from `rows` [C, N]. */
function track(norm: BatchNormNd, rows: Tensor): void {
  const { running_mean: mean, running_var: variance, num_batches_tracked: count } = norm;
  if (mean === null || variance === null || count === null) return;
  const [C, N] = rows.shape as [number, number];
  noGrad(() =>
    scope(() => {
      const batches = count.to("f32").add(1);
      count.copy(batches.to("i32"));
      const share = norm.momentum ?? batches.pow(-1);
      const batchMean = rows.mean(1);
      const centred = rows.sub(batchMean.reshape(C, 1));
      const batchVariance = centred
        .mul(centred)
        .sum(1)
        .div(N - 1);
      for (const [running, measured] of [
        [mean, batchMean],
        [variance, batchVariance],
      ] as const)
        running.copy(running.add(measured.sub(running).mul(share)));
    }),
  );
}

/**
 * A batch norm over [B, C] or [B, C, L]: y = (x − mean) / √(var + eps) · w + b, by the batch's statistics of each
 * channel in training and by running statistics in `eval()` (Ioffe and Szegedy 2015). As `torch.nn.BatchNorm1d`.
 */
export class BatchNorm1d extends BatchNormNd {
  protected get takes() {
    return ["BatchNorm1d", 2, 3, "[B, C] or [B, C, L]"] as const;
  }

  /** Over `numFeatures` channels. Throws `ERR_OPTION`. */
  constructor(numFeatures: number, given?: BatchNormOptions) {
    super("BatchNorm1d", numFeatures, given);
  }
}

/**
 * A batch norm over [B, C, H, W]: y = (x − mean) / √(var + eps) · w + b, by the batch's statistics of each channel in
 * training and by running statistics in `eval()` (Ioffe and Szegedy 2015). As `torch.nn.BatchNorm2d`.
 */
export class BatchNorm2d extends BatchNormNd {
  protected get takes() {
    return ["BatchNorm2d", 4, 4, "[B, C, H, W]"] as const;
  }

  /** Over `numFeatures` channels. Throws `ERR_OPTION`. */
  constructor(numFeatures: number, given?: BatchNormOptions) {
    super("BatchNorm2d", numFeatures, given);
  }
}
