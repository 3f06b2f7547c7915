import { tensor, zeros } from "../../tensor/create.js";
import { LowrankError } from "../../errors.js";
import { Linear as BaseLinear } from "../../nn/linear.js";
import { drawUniformValues } from "../../tensor/random.js";
import { makeParameter, type Tensor } from "../../tensor/tensor.js";
import { checkAdapterRoom, describeAdapter, type Adapter, type FreshOptions } from "./adapter.js";
import { checkBase, checkLayer } from "./options.js";
import { Linear, LINEAR_FIELDS, shareTensors, type LoRALinearOptions } from "./linear.js";
import { LORA_FIELDS, registerStandard } from "./standard.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { createRefusal } from "../../refusals/refusal.js";

/** Options of `lora.MergedLinear`. */
export interface MergedLinearOptions extends LoRALinearOptions {
  /** Which of the equal slices of the outputs are adapted. Default: `[false]`, which adapts none. */
  enableLora?: readonly boolean[] | undefined;
}

/**
 * Several linear layers stored as one weight, such as q, k and v, with adapters for some of them. The outputs are split
 * into `enableLora.length` equal slices, and y[slice i] += s·drop(x)·A_iᵀ·B_iᵀ for each enabled slice. Shapes, with E
 * slices enabled: A [r·E, in], B [out / length · E, r], one block per slice. All A_i are computed as one product, and ΔW
 * is never materialised. With no slice enabled the layer is a plain layer with a frozen weight.
 * Source: loralib's MergedLinear.
 *
 * Throws `ERR_OPTION` if the length of `enableLora` does not divide the number of outputs.
 */
export class MergedLinear extends Linear {
  static {
    registerStandard(this, [...LINEAR_FIELDS, ...LORA_FIELDS, "enableLora"]);
  }

  /** Which of the equal slices of the outputs are adapted. */
  readonly enableLora: readonly boolean[];

  /** Throws `ERR_OPTION` for invalid sizes and invalid or unknown options, `ERR_OUT_OF_MEMORY`. */
  constructor(inFeatures: number, outFeatures: number, options: MergedLinearOptions = {}) {
    checkLayer("lora.MergedLinear", options, { inFeatures, outFeatures });
    const { enableLora = [false], r = 0, loraAlpha = 1, ...rest } = options;
    checkSlices(enableLora, outFeatures);
    super(inFeatures, outFeatures, rest);
    this.enableLora = [...enableLora];
    if (r === 0) return;
    if (this.slices.length > 0) this.startWith(this.createAdapter({ ...options, r, loraAlpha }));
    else this.weight.requiresGrad = false;
  }

  /** Makes a low-rank layer from `layer` and shares its weights. */
  static override fromBase(layer: BaseLinear, options: MergedLinearOptions = {}): MergedLinear {
    checkBase("lora.MergedLinear", layer, BaseLinear, "a linear layer", options);
    const lora = new MergedLinear(layer.inFeatures, layer.outFeatures, {
      ...shareTensors(layer),
      ...options,
    });
    lora.training = layer.training;
    return lora;
  }

  /** Indices of the enabled slices, from 0. */
  get slices(): number[] {
    return this.enableLora.flatMap((on, i) => (on ? [i] : []));
  }

  /** The number of outputs per slice. */
  get width(): number {
    return this.outFeatures / this.enableLora.length;
  }

  /** @internal Makes A [r·E, in] as U(±1/√in) and B [width·E, r] as zeros. */
  override createAdapter(options: FreshOptions): Adapter {
    const { r, useDora, loraBias } = options;
    const groups = this.slices.length;
    if (groups === 0)
      throw new LowrankError(
        "ERR_OPTION",
        "lora.MergedLinear: enableLora enables nothing that could be adapted",
      );
    if (useDora || loraBias)
      throw createRefusal(
        ADAPTER_REFUSALS.mergedLinear,
        "lora.MergedLinear",
        useDora ? "useDora" : "loraBias",
      );
    const { inFeatures, width, weight } = this;
    const { device } = weight;
    checkAdapterRoom("lora.MergedLinear", device, r * groups * (inFeatures + width));
    const bound = 1 / Math.sqrt(inFeatures);
    const shape = [r * groups, inFeatures];
    return {
      ...describeAdapter(options),
      loraA: makeParameter(
        tensor(drawUniformValues(r * groups * inFeatures, -bound, bound), { shape, device }),
      ),
      loraB: makeParameter(zeros([width * groups, r], { device })),
    };
  }

  /** @internal Returns the first output of each enabled slice; empty for a plain adapter. */
  override listWindows(adapter: Adapter): readonly number[] {
    return isPlain(this, adapter) ? [] : this.slices.map((slice) => slice * this.width);
  }

  /** @internal Returns A [r·E, in] and B [out, r·E], block-diagonal over the enabled slices and zero in the others. */
  override computeFactors(adapter: Adapter): { loraA: Tensor; loraB: Tensor } {
    if (isPlain(this, adapter)) return super.computeFactors(adapter);
    const { loraA, loraB } = adapter;
    const { width } = this;
    const [rank, r] = [loraA.shape[0] as number, loraB.shape[1] as number];
    const { device } = loraB;
    let enabled = 0;
    const [first, ...rest] = this.enableLora.map((on) => {
      if (!on) return zeros([width, rank], { device });
      const block = loraB.slice(0, enabled * width, (enabled + 1) * width);
      const before = zeros([width, enabled * r], { device });
      const after = zeros([width, rank - ++enabled * r], { device });
      return before.concat([block, after], 1);
    });
    return { loraA, loraB: (first as Tensor).concat(rest, 0) };
  }

  /** @internal Returns the equivalent plain adapter: rank r·E, alpha times E (√E with rank-stabilised scaling). */
  override buildPlainAdapter(name: string): Adapter {
    const adapter = this.findAdapter(name);
    if (isPlain(this, adapter)) return adapter;
    const { loraA, loraB } = this.computeFactors(adapter);
    const r = loraA.shape[0] as number;
    const groups = r / adapter.r;
    const loraAlpha = adapter.loraAlpha * (adapter.useRslora ? Math.sqrt(groups) : groups);
    return { ...adapter, r, loraAlpha, loraA, loraB };
  }
}

/** Whether an adapter is a plain one over all outputs, as loaded from a file of PEFT's. */
function isPlain({ outFeatures }: MergedLinear, { loraA, loraB }: Adapter): boolean {
  return loraB.shape[0] === outFeatures && loraA.shape[0] === loraB.shape[1];
}

function checkSlices(enableLora: readonly boolean[], outFeatures: number): void {
  const { length } = enableLora;
  if (length === 0 || outFeatures % length !== 0) {
    throw new LowrankError(
      "ERR_OPTION",
      `lora.MergedLinear: enableLora names ${length} slices, which do not divide ${outFeatures} outputs`,
    );
  }
}
