import { uniform } from "../create.js";
import { session } from "../native.js";
import { made, parameter, type Tensor } from "../tensor.js";
import { Module } from "./module.js";
import { checkRoom } from "./room.js";
import type { Device } from "../device.js";

export interface LinearOptions {
  bias?: boolean;
  device?: Device;
  /** Values to use as they are, instead of drawing new ones. */
  weight?: Tensor;
  biasValues?: Tensor;
}

/**
 * y = x·Wᵀ + b. Shapes: x [..., in], W [out, in], b [out], y [..., out]. W and b start as
 * U(±1/√in), as PyTorch's.
 */
export class Linear extends Module {
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** Whether the weight is stored as [in, out], as GPT-2's is. */
  readonly fanInFanOut: boolean = false;
  weight: Tensor;
  bias: Tensor | null;

  constructor(
    inFeatures: number,
    outFeatures: number,
    options: LinearOptions & { fanInFanOut?: boolean } = {},
  ) {
    super();
    this.inFeatures = inFeatures;
    this.outFeatures = outFeatures;
    this.fanInFanOut = options.fanInFanOut ?? false;
    const place = options.device === undefined ? {} : { device: options.device };
    if (!options.weight) checkRoom("Linear", options.device, inFeatures * outFeatures);
    const bound = 1 / Math.sqrt(inFeatures);
    const draw = (shape: number[]): Tensor => uniform(shape, -bound, bound, place);
    const shape = this.fanInFanOut ? [inFeatures, outFeatures] : [outFeatures, inFeatures];
    this.weight = options.weight ?? parameter(draw(shape));
    this.bias =
      options.biasValues ??
      (options.bias === false || options.weight ? null : parameter(draw([outFeatures])));
  }

  forward(x: Tensor): Tensor {
    return made(() => session().linear(x.id, this.weight.id, this.bias?.id, this.fanInFanOut));
  }
}
