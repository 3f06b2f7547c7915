import { checkFlag, checkKnownOptions, checkWhole } from "../arguments/check.js";
import { drawUniform } from "../tensor/create.js";
import { session } from "../native/binding.js";
import { recordOp, makeParameter, type Tensor } from "../tensor/tensor.js";
import { checkInput, checkValues } from "./inputs.js";
import { Module } from "./module.js";
import { checkRoom } from "./room.js";
import type { Device } from "../device/device.js";

/** The options of `Linear`. */
export interface LinearOptions {
  /** Whether there is a bias; true by default, unless `weight` is given. */
  bias?: boolean | undefined;
  /** The device of the parameters; the default device if omitted. */
  device?: Device | undefined;
  /** A weight to use instead of a random one; without `biasValues` there is no bias then. */
  weight?: Tensor | undefined;
  /** A bias [out] to use, whatever `bias` says. */
  biasValues?: Tensor | undefined;
}

const OPTIONS = ["bias", "device", "weight", "biasValues", "fanInFanOut"] as const;

/**
 * y = x·Wᵀ + b. Shapes: x [..., in], W [out, in], b [out], y [..., out]. W and b start as U(±1/√in), as in
 * `torch.nn.Linear`.
 */
export class Linear extends Module {
  /** Features of the input. */
  readonly inFeatures: number;
  /** Features of the output. */
  readonly outFeatures: number;
  /** Whether the weight is stored as [in, out], as in GPT-2. */
  readonly fanInFanOut: boolean = false;
  /** The weight, [out, in]; [in, out] under `fanInFanOut`. */
  weight: Tensor;
  /** The bias; null if there is none. */
  bias: Tensor | null;

  /**
   * From `inFeatures` to `outFeatures`. With `fanInFanOut` the weight is stored as [in, out]. Throws `ERR_OPTION`; `ERR_SHAPE_MISMATCH` for values that
   * do not fit.
   */
  constructor(
    inFeatures: number,
    outFeatures: number,
    given: LinearOptions & { fanInFanOut?: boolean | undefined } = {},
  ) {
    super();
    // Subclasses check their own options.
    const chosen = new.target === Linear ? checkKnownOptions("Linear", given, OPTIONS) : given;
    const { bias = true, device, weight, biasValues, fanInFanOut = false } = chosen;
    this.inFeatures = checkWhole("Linear", "inFeatures", inFeatures, 1);
    this.outFeatures = checkWhole("Linear", "outFeatures", outFeatures, 1);
    this.fanInFanOut = checkFlag("Linear", "fanInFanOut", fanInFanOut);
    checkFlag("Linear", "bias", bias);
    if (weight === undefined) checkRoom("Linear", device, inFeatures * outFeatures);
    const bound = 1 / Math.sqrt(inFeatures);
    const draw = (shape: number[]): Tensor => drawUniform(shape, -bound, bound, { device });
    const shape = this.fanInFanOut ? [inFeatures, outFeatures] : [outFeatures, inFeatures];
    this.weight =
      weight === undefined ? makeParameter(draw(shape)) : checkValues("Linear", "weight", weight, shape);
    if (biasValues !== undefined) this.bias = checkValues("Linear", "biasValues", biasValues, [outFeatures]);
    else this.bias = bias && weight === undefined ? makeParameter(draw([outFeatures])) : null;
  }

  /**
   * Shapes: x [..., in], y [..., out]. Throws `ERR_OPTION` if it is not a tensor, `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`,
   * `ERR_DEVICE_MISMATCH`.
   */
  forward(x: Tensor): Tensor {
    checkInput("Linear", x);
    return recordOp(() => session().linear(x.id, this.weight.id, this.bias?.id, this.fanInFanOut));
  }
}
