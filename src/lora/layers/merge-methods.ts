/** The methods of low-rank layers that compute ΔW and add it to the weight. */
import { zeros } from "../../tensor/create.js";
import { keep, noGrad, scope } from "../../tensor/scope.js";
import { makeParameter, type Tensor } from "../../tensor/tensor.js";
import { QUANTISED_REFUSALS } from "../../refusals/quantised.js";
import type { Adapter, FreshOptions } from "./adapter.js";
import { computeAdaptedWeight, computeDelta } from "./adapted-weight.js";
import type { AnyLoRALayer, LowRank } from "./any-layer.js";
import { computeNorms } from "./dora.js";
import { checkMergeable, refuseQuantised } from "./quantised.js";
import { release } from "./release.js";
import { findAdapterPerRow } from "./rows.js";
import { listActiveShares, computeBias, addStart } from "./shares.js";

export const mergeMethods = {
  get merged(): boolean {
    return this.unmergedWeight !== null;
  },

  /** @internal */
  get baseWeight(): Tensor {
    return this.unmergedWeight?.tensor ?? this.weight;
  },

  /** @internal */
  get baseBias(): Tensor | null {
    const { unmergedWeight: unmerged } = this;
    return (unmerged?.bias === undefined ? this.bias : unmerged.bias) ?? null;
  },

  /** @internal */
  get outputDim(): number {
    return 0;
  },

  /** @internal */
  computeBroadcastShape(): number[] {
    return [-1];
  },

  /** @internal Adds the bias and the magnitude that `options` ask for. */
  completeAdapter(adapter: Adapter, { loraBias, useDora }: FreshOptions): Adapter {
    if (loraBias)
      adapter.loraBias = makeParameter(
        zeros(this.computeStoredShape("bias", adapter.r), { device: this.weight.device }),
      );
    if (useDora) {
      refuseQuantised(this.baseWeight, QUANTISED_REFUSALS.dora);
      adapter.magnitude = makeParameter(this.createMagnitude(adapter));
    }
    return adapter;
  },

  /** @internal */
  createMagnitude(adapter: Adapter): Tensor {
    return computeNorms(this, adapter, adapter.scaling);
  },

  /** @internal */
  computeFactors({ loraA, loraB }: Adapter): { loraA: Tensor; loraB: Tensor } {
    return { loraA, loraB };
  },

  /** @internal */
  computeProduct(adapter: Adapter): Tensor {
    const { loraA, loraB } = this.computeFactors(adapter);
    if (this.outputDim === 1) return loraA.matmul(loraB, { transA: true, transB: true });
    return loraB.matmul(loraA).reshape(this.weight.shape);
  },

  deltaWeight(name?: string): Tensor {
    if (name !== undefined) {
      const adapter = this.findAdapter(name);
      return computeDelta(this, addStart({ adapter, scaling: adapter.scaling }));
    }
    const shares = listActiveShares(this);
    if (shares.some(({ adapter }) => adapter.magnitude))
      return computeAdaptedWeight(this, shares).sub(this.baseWeight.to("f32"));
    return computeDelta(this, shares);
  },

  /**
   * Replaces the weight by W + ΔW in a new tensor. The base tensor is not modified, so `unmerge` restores it bit for bit.
   * Does nothing if already merged.
   */
  merge(): AnyLoRALayer {
    if (this.merged || this.active.length === 0) return this;
    const { weight: base, bias } = this;
    checkMergeable(base);
    const shares = listActiveShares(this);
    const merged = noGrad(() =>
      scope(() => ({
        weight: computeAdaptedWeight(this, shares).to(base.dtype),
        bias: computeBias(bias ?? null, shares),
      })),
    );
    keep(merged.weight);
    this.weight = merged.weight;
    this.unmergedWeight = { tensor: base };
    if (merged.bias !== (bias ?? null)) {
      keep(merged.bias as Tensor);
      this.bias = merged.bias;
      this.unmergedWeight = { tensor: base, bias: bias ?? null };
    }
    return this;
  },

  unmerge(): AnyLoRALayer {
    const { unmergedWeight: base } = this;
    if (base === null) return this;
    release(this.weight);
    this.weight = base.tensor;
    if (base.bias !== undefined) {
      release(this.bias);
      this.bias = base.bias;
    }
    this.unmergedWeight = null;
    return this;
  },

  /** @internal */
  settle(): Tensor[] {
    const { unmergedWeight: base } = this;
    if (base === null) return [];
    makeParameter(this.weight, false);
    if (base.bias !== undefined && this.bias) makeParameter(this.bias, false);
    this.unmergedWeight = null;
    return [base.tensor, ...(base.bias ? [base.bias] : [])];
  },

  /** @internal */
  runWithBase<R>(forward: () => R): R {
    return this.isDisabled || findAdapterPerRow() ? runWithBaseTensors(this, forward) : forward();
  },
} satisfies Partial<LowRank> & ThisType<AnyLoRALayer>;

/** Runs `use` with the base weight and bias in place of merged ones. */
export function runWithBaseTensors<R>(layer: AnyLoRALayer, use: () => R): R {
  const { unmergedWeight: base, weight, bias } = layer;
  if (base === null) return use();
  layer.weight = base.tensor;
  if (base.bias !== undefined) layer.bias = base.bias;
  try {
    return use();
  } finally {
    layer.weight = weight;
    if (base.bias !== undefined) layer.bias = bias;
  }
}
