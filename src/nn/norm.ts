import { checkNumberThat, checkKnownOptions, refuse, checkWhole } from "../arguments/check.js";
import { ones, zeros } from "../tensor/create.js";
import type { Device } from "../device/device.js";
import { session } from "../native/binding.js";
import { recordOp, recordOps, makeParameter, type Tensor } from "../tensor/tensor.js";
import { checkInput, checkValues } from "./inputs.js";
import { Module } from "./module.js";

/** The options of a norm over features. */
export interface NormOptions {
  /** Added under the root: 1e-5 of `LayerNorm`, 1e-6 of `RMSNorm`, by default. */
  eps?: number | undefined;
  /** The device of the parameters; the default device if omitted. */
  device?: Device | undefined;
  /** A weight [size] to use instead of ones. */
  weight?: Tensor | undefined;
  /** Whether there is a bias, or one to use; there is one of zeros by default. */
  bias?: Tensor | boolean | undefined;
}

function resolveEps(layer: string, eps: unknown): number {
  return checkNumberThat(layer, "eps", eps, (e) => e >= 0 && Number.isFinite(e), "a number of at least 0");
}

/** y = x / √(mean(x²) + eps) · w over the last dimension (Zhang and Sennrich 2019). As `torch.nn.RMSNorm` with that eps. */
export class RMSNorm extends Module {
  /** Added to the variance. */
  readonly eps: number;
  /** The scale of each feature. */
  weight: Tensor;

  /** Over `size` features. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`. */
  constructor(size: number, given?: Omit<NormOptions, "bias">) {
    super();
    const { eps = 1e-6, device, weight } = checkKnownOptions("RMSNorm", given, ["eps", "device", "weight"]);
    checkWhole("RMSNorm", "size", size, 1);
    this.eps = resolveEps("RMSNorm", eps);
    this.weight =
      weight === undefined
        ? makeParameter(ones([size], { device }))
        : checkValues("RMSNorm", "weight", weight, [size]);
  }

  /** Shapes: x and y [..., size]. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`. */
  forward(x: Tensor): Tensor {
    checkInput("RMSNorm", x);
    return recordOp(() => session().rmsNorm(x.id, this.weight.id, this.eps));
  }

  /** x + r and its norm in one pass over memory, with the bits of `add` and `forward`. */
  forwardAdded(x: Tensor, r: Tensor): [sum: Tensor, y: Tensor] {
    checkInput("RMSNorm", x);
    checkInput("RMSNorm", r, "what is added");
    if (this.forward !== RMSNorm.prototype.forward) return addThenNormalise(this, x, r);
    const { weight, eps } = this;
    return recordOps(() => session().addedRmsNorm(x.id, r.id, weight.id, eps)) as [Tensor, Tensor];
  }
}

/** y = (x − mean) / √(var + eps) · w + b over the last dimension (Ba et al. 2016). As `torch.nn.LayerNorm`. */
export class LayerNorm extends Module {
  /** Added to the variance. */
  readonly eps: number;
  /** The scale of each feature. */
  weight: Tensor;
  /** The bias; null if there is none. */
  bias: Tensor | null;

  /** Over `size` features. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`. */
  constructor(size: number, given?: NormOptions) {
    super();
    const known = ["eps", "device", "weight", "bias"] as const;
    const { eps = 1e-5, device, weight, bias = true } = checkKnownOptions("LayerNorm", given, known);
    checkWhole("LayerNorm", "size", size, 1);
    this.eps = resolveEps("LayerNorm", eps);
    this.weight =
      weight === undefined
        ? makeParameter(ones([size], { device }))
        : checkValues("LayerNorm", "weight", weight, [size]);
    if (typeof bias === "object") this.bias = checkValues("LayerNorm", "bias", bias, [size]);
    else if (typeof bias === "boolean") this.bias = bias ? makeParameter(zeros([size], { device })) : null;
    else refuse("LayerNorm", "bias", "true, false or a tensor", bias);
  }

  /** Shapes: x and y [..., size]. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`. */
  forward(x: Tensor): Tensor {
    checkInput("LayerNorm", x);
    return recordOp(() => session().layerNorm(x.id, this.weight.id, this.bias?.id, this.eps));
  }

  /** x + r and its norm in one pass over memory, with the bits of `add` and `forward`. */
  forwardAdded(x: Tensor, r: Tensor): [sum: Tensor, y: Tensor] {
    checkInput("LayerNorm", x);
    checkInput("LayerNorm", r, "what is added");
    if (this.forward !== LayerNorm.prototype.forward) return addThenNormalise(this, x, r);
    const { weight, bias, eps } = this;
    return recordOps(() => session().addedLayerNorm(x.id, r.id, weight.id, bias?.id, eps)) as [
      Tensor,
      Tensor,
    ];
  }
}

/** The sum and its norm, for a subclass with its own `forward`. */
function addThenNormalise(norm: RMSNorm | LayerNorm, x: Tensor, r: Tensor): [sum: Tensor, y: Tensor] {
  const sum = x.add(r);
  return [sum, norm.forward(sum)];
}
