import { drawUniform, zeros } from "../../tensor/create.js";
import { session } from "../../native/binding.js";
import { checkInput } from "../../nn/inputs.js";
import { Linear as BaseLinear, type LinearOptions } from "../../nn/linear.js";
import { isTraining } from "../../tensor/scope.js";
import { recordOp, makeParameter, type Tensor } from "../../tensor/tensor.js";
import {
  checkAdapterRoom,
  describeAdapter,
  type Adapter,
  type AdapterPart,
  type FreshOptions,
} from "./adapter.js";
import { composeForward } from "./composed.js";
import { LoRALayer, type LoRAOptions } from "./layer.js";
import { checkBase, checkLayer } from "./options.js";
import { multiplyWithAdapters } from "./lora-linear.js";
import { runByRows, listShares, type Share } from "./shares.js";
import { LORA_FIELDS, registerStandard } from "./standard.js";

/** Options of `lora.Linear`. */
export interface LoRALinearOptions extends LoRAOptions, LinearOptions {
  /** Whether the weight is stored as [in, out]. */
  fanInFanOut?: boolean | undefined;
}

/** Fields of linear layers. */
export const LINEAR_FIELDS = ["inFeatures", "outFeatures", "fanInFanOut", "weight", "bias"] as const;

/** A dense product and at most one low-rank path added to it. */
export interface LinearParts {
  weight: Tensor;
  bias: Tensor | null;
  share?: Share | undefined;
}

/**
 * y = x·Wᵀ + b + s·drop(x)·Aᵀ·Bᵀ. Shapes: A [r, in], B [out, r]. A starts as U(±1/√in) (Kaiming with a = √5), B at zero,
 * so that training starts exactly at the base. Source: Hu et al. 2021; loralib's Linear.
 */
export class Linear extends LoRALayer(BaseLinear) {
  static {
    registerStandard(BaseLinear, LINEAR_FIELDS);
    registerStandard(this, [...LINEAR_FIELDS, ...LORA_FIELDS]);
  }

  /** Throws `ERR_OPTION` for invalid sizes and invalid or unknown options, `ERR_OUT_OF_MEMORY`. */
  constructor(inFeatures: number, outFeatures: number, options: LoRALinearOptions = {}) {
    super(inFeatures, outFeatures, checkLayer("lora.Linear", options, { inFeatures, outFeatures }));
    this.mergeWeights = options.mergeWeights ?? true;
    const { r = 0, loraAlpha = 1 } = options;
    if (r > 0) this.startWith(this.createAdapter({ ...options, r, loraAlpha }));
  }

  /** Makes a low-rank layer from `layer` and shares its weights. */
  static fromBase(layer: BaseLinear, options: LoRALinearOptions = {}): Linear {
    checkBase("lora.Linear", layer, BaseLinear, "a linear layer", options);
    const lora = new Linear(layer.inFeatures, layer.outFeatures, { ...shareTensors(layer), ...options });
    lora.training = layer.training;
    return lora;
  }

  /** @internal */
  override toPlain(): BaseLinear {
    const { inFeatures, outFeatures, fanInFanOut, baseWeight: weight, baseBias: bias } = this;
    const plain = new BaseLinear(inFeatures, outFeatures, {
      fanInFanOut,
      weight,
      ...(bias ? { biasValues: bias } : {}),
    });
    return Object.assign(plain, { training: this.training });
  }

  /** @internal The output dimension of the weight. */
  override get outputDim(): number {
    return this.fanInFanOut ? 1 : 0;
  }

  /** @internal Makes A as U(±1/√in) and B as zeros. */
  override createAdapter(options: FreshOptions): Adapter {
    const { inFeatures, outFeatures, weight } = this;
    const { device } = weight;
    checkAdapterRoom("lora.Linear", device, options.r * (inFeatures + outFeatures));
    const bound = 1 / Math.sqrt(inFeatures);
    const adapter = {
      ...describeAdapter(options),
      loraA: makeParameter(drawUniform([options.r, inFeatures], -bound, bound, { device })),
      loraB: makeParameter(zeros([outFeatures, options.r], { device })),
    };
    return this.completeAdapter(adapter, options);
  }

  /** @internal A [r, in], B [out, r], bias and magnitude [out]. */
  override computeStoredShape(part: AdapterPart, r: number): readonly number[] {
    if (part === "A") return [r, this.inFeatures];
    return part === "B" ? [this.outFeatures, r] : [this.outFeatures];
  }

  /** @internal Returns the first output of each window that an adapter in this layer's form writes; empty for all outputs. */
  listWindows(_adapter: Adapter): readonly number[] {
    return [];
  }

  /** x [..., in] → [..., out]. Throws `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`, `ERR_DEVICE_MISMATCH`. */
  override forward(x: Tensor): Tensor {
    if (!this.adapts) return this.runWithBase(() => super.forward(x));
    checkInput("lora.Linear", x);
    const shares = listShares(this, x.size / this.inFeatures);
    if (shares.some(({ adapter, runs }) => adapter.magnitude || (adapter.loraBias && runs)))
      return runByRows(this, x, (part, active) => composeProducts(this, part, active));
    return multiplyWithAdapters(this, x, this.baseWeight, this.baseBias, shares);
  }

  /** @internal Returns the low-rank path that forward adds for `rows` rows, if there is exactly one, over all rows and outputs and without dropout. */
  findPlainShare(rows: number): Share | undefined {
    if (this.forward !== Linear.prototype.forward || !this.adapts) return undefined;
    const [share, ...rest] = listShares(this, rows);
    if (share === undefined || rest.length > 0 || share.runs) return undefined;
    const { adapter } = share;
    const drops = adapter.loraDropout > 0 && isTraining(this);
    if (drops || adapter.magnitude || this.listWindows(adapter).length > 0) return undefined;
    return share;
  }

  /** @internal Returns the dense product and the low-rank path of forward over `rows` rows; undefined if forward does more. */
  findPlainParts(rows: number): LinearParts | undefined {
    if (this.forward !== Linear.prototype.forward) return undefined;
    if (!this.adapts) return this.runWithBase(() => ({ weight: this.weight, bias: this.bias }));
    const share = this.findPlainShare(rows);
    if (share === undefined || share.adapter.loraBias !== undefined) return undefined;
    return { weight: this.baseWeight, bias: this.baseBias, share };
  }
}

/** Computes the base product and the low-rank products separately, for adapters with magnitudes or biases. */
function composeProducts(layer: Linear, x: Tensor, shares: readonly Share[]): Tensor {
  const { baseWeight: weight, fanInFanOut } = layer;
  return composeForward(layer, x, shares, {
    base: (given, bias) => recordOp(() => session().linear(given.id, weight.id, bias?.id, fanInFanOut)),
    lowRank: (given, adapter, scaling) => {
      const { loraA, loraB } = layer.computeFactors(adapter);
      return given.matmul(loraA, { transB: true }).mul(scaling).matmul(loraB, { transB: true });
    },
    sum: (given, adapter, scaling) =>
      multiplyWithAdapters(layer, given, weight, null, [{ adapter, scaling }]),
  });
}

/** Returns the options that make a new layer share the tensors of `layer`. */
export function shareTensors(layer: BaseLinear): LoRALinearOptions {
  const { weight, bias, fanInFanOut } = layer;
  return { fanInFanOut, weight, ...(bias ? { biasValues: bias } : {}) };
}
