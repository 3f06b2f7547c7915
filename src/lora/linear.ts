import { tensor, zeros } from "../create.js";
import { session } from "../native.js";
import { Linear as BaseLinear, type LinearOptions } from "../nn/linear.js";
import { nextDropout, uniform } from "../random.js";
import { made, parameter, type Tensor } from "../tensor.js";
import { checkRoom, described, type Adapter, type AdapterOptions, type AdapterPart } from "./adapter.js";
import { biasOf, checkOptions, combined, LoRALayer, sharesOf, type LoRAOptions } from "./layer.js";

export interface LoRALinearOptions extends LoRAOptions, LinearOptions {
  /** Whether the weight is stored as [in, out]. */
  fanInFanOut?: boolean;
}

/**
 * y = x·Wᵀ + b + s·drop(x)·Aᵀ·Bᵀ. Shapes: A [r, in], B [out, r]. A starts as U(±1/√in) (Kaiming
 * with a = √5), B at zero, so that training starts from exactly the base. Source: Hu et al. 2021;
 * loralib's Linear.
 */
export class Linear extends LoRALayer(BaseLinear) {
  constructor(inFeatures: number, outFeatures: number, options: LoRALinearOptions = {}) {
    super(inFeatures, outFeatures, options);
    checkOptions("lora.Linear", options);
    this.mergeWeights = options.mergeWeights ?? true;
    const { r = 0, loraAlpha = 1 } = options;
    if (r > 0) this.addAdapter("default", this.freshAdapter({ ...options, r, loraAlpha }));
  }

  /** A low-rank layer in the place of `layer`: its weights are kept, and shared. */
  static fromBase(layer: BaseLinear, options: LoRALinearOptions = {}): Linear {
    const { weight, bias, inFeatures, outFeatures } = layer;
    const lora = new Linear(inFeatures, outFeatures, {
      fanInFanOut: layer.fanInFanOut,
      ...options,
      weight,
      ...(bias ? { biasValues: bias } : {}),
    });
    lora.training = layer.training;
    return lora;
  }

  override get outputDim(): number {
    return this.fanInFanOut ? 1 : 0;
  }

  override freshAdapter(options: AdapterOptions): Adapter {
    const adapter: Adapter = freshLinear(this, options);
    if (options.loraBias)
      adapter.loraBias = parameter(zeros([this.outFeatures], { device: this.weight.device }));
    if (options.useDora) adapter.magnitude = parameter(this.magnitudeOf(adapter));
    return adapter;
  }

  override product({ loraA, loraB }: Adapter): Tensor {
    return this.fanInFanOut ? loraA.matmul(loraB, { transA: true, transB: true }) : loraB.matmul(loraA);
  }

  override shapeOnDisk(part: AdapterPart, r: number): readonly number[] {
    if (part === "A") return [r, this.inFeatures];
    return part === "B" ? [this.outFeatures, r] : [this.outFeatures];
  }

  override forward(x: Tensor): Tensor {
    if (!this.adapts) return this.withBase(() => super.forward(x));
    const shares = sharesOf(this, x.size / this.inFeatures);
    const { loraA, loraB, scaling } = combined(shares);
    const p = this.training ? this.loraDropout : 0;
    // A draw is taken only where something is dropped.
    const [seed, stream] = p > 0 ? nextDropout() : [0, 0];
    const { weight, fanInFanOut } = this;
    const bias = biasOf(this.bias, shares);
    return made(() =>
      session().loraLinear(
        x.id,
        weight.id,
        bias?.id,
        loraA.id,
        loraB.id,
        scaling,
        fanInFanOut,
        p,
        seed,
        stream,
      ),
    );
  }
}

/** A new adapter for a linear layer, on the layer's device. */
export function freshLinear(layer: BaseLinear, options: AdapterOptions): Adapter {
  const { inFeatures, outFeatures, weight } = layer;
  const bound = 1 / Math.sqrt(inFeatures);
  const { device } = weight;
  const { r } = options;
  checkRoom("lora.Linear", device, r * (inFeatures + outFeatures));
  return {
    ...described(options),
    loraA: parameter(tensor(uniform(r * inFeatures, -bound, bound), { shape: [r, inFeatures], device })),
    loraB: parameter(zeros([outFeatures, r], { device })),
  };
}
