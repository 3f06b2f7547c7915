import { ones, zeros } from "../create.js";
import type { Device } from "../device.js";
import { session } from "../native.js";
import { made, madeAll, parameter, type Tensor } from "../tensor.js";
import { Module } from "./module.js";

export interface NormOptions {
  eps?: number;
  device?: Device;
  weight?: Tensor;
  bias?: Tensor | boolean;
}

/** y = x / √(mean(x²) + eps) · w over the last dimension (Zhang and Sennrich 2019). */
export class RMSNorm extends Module {
  readonly eps: number;
  weight: Tensor;

  constructor(size: number, { eps = 1e-6, device, weight }: Omit<NormOptions, "bias"> = {}) {
    super();
    this.eps = eps;
    this.weight = weight ?? parameter(ones([size], device === undefined ? {} : { device }));
  }

  forward(x: Tensor): Tensor {
    return made(() => session().rmsNorm(x.id, this.weight.id, this.eps));
  }

  /** x + r and its norm, to the bit what `add` and `forward` give, in one pass over memory. */
  forwardAdded(x: Tensor, r: Tensor): [sum: Tensor, y: Tensor] {
    if (this.forward !== RMSNorm.prototype.forward) return apart(this, x, r);
    const { weight, eps } = this;
    return madeAll(() => session().addedRmsNorm(x.id, r.id, weight.id, eps)) as [Tensor, Tensor];
  }
}

/** y = (x − mean) / √(var + eps) · w + b over the last dimension (Ba et al. 2016). */
export class LayerNorm extends Module {
  readonly eps: number;
  weight: Tensor;
  bias: Tensor | null;

  constructor(size: number, { eps = 1e-5, device, weight, bias = true }: NormOptions = {}) {
    super();
    this.eps = eps;
    const place = device === undefined ? {} : { device };
    this.weight = weight ?? parameter(ones([size], place));
    this.bias = typeof bias === "object" ? bias : bias ? parameter(zeros([size], place)) : null;
  }

  forward(x: Tensor): Tensor {
    return made(() => session().layerNorm(x.id, this.weight.id, this.bias?.id, this.eps));
  }

  /** x + r and its norm, to the bit what `add` and `forward` give, in one pass over memory. */
  forwardAdded(x: Tensor, r: Tensor): [sum: Tensor, y: Tensor] {
    if (this.forward !== LayerNorm.prototype.forward) return apart(this, x, r);
    const { weight, bias, eps } = this;
    return madeAll(() => session().addedLayerNorm(x.id, r.id, weight.id, bias?.id, eps)) as [Tensor, Tensor];
  }
}

/** Of a norm with a forward of its own. */
function apart(norm: RMSNorm | LayerNorm, x: Tensor, r: Tensor): [sum: Tensor, y: Tensor] {
  const sum = x.add(r);
  return [sum, norm.forward(sum)];
}
