import { tensor, zeros } from "../../tensor/create.js";
import {
  Conv1d as BaseConv1d,
  Conv2d as BaseConv2d,
  Conv3d as BaseConv3d,
  checkConvInput,
  ConvNd,
  type ConvOptions,
} from "../../nn/conv.js";
import type { Module } from "../../nn/module.js";
import { convolve, createPointwise, type PerDimension } from "../../nn/convolution.js";
import { drawUniformValues } from "../../tensor/random.js";
import { addMethods } from "../../tensor/methods.js";
import { scope } from "../../tensor/scope.js";
import { makeParameter, type Tensor } from "../../tensor/tensor.js";
import {
  checkAdapterRoom,
  describeAdapter,
  type Adapter,
  type AdapterPart,
  type FreshOptions,
} from "./adapter.js";
import type { LowRank } from "./any-layer.js";
import { composeForward } from "./composed.js";
import { expandAcrossGroups } from "./grouped.js";
import { LoRALayer, type LayerClass, type LoRAOptions } from "./layer.js";
import { checkBase, checkBaseClass, checkLayer } from "./options.js";
import { computeOverWeight } from "./over-weight.js";
import { runByRows } from "./shares.js";
import { LORA_FIELDS, registerStandard } from "./standard.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { createRefusal } from "../../refusals/refusal.js";

/** Options of `lora.Conv1d`, `lora.Conv2d` and `lora.Conv3d`. */
export type LoRAConvOptions = LoRAOptions & ConvOptions;

/** Any low-rank convolution. */
export type LoRAConv = ConvNd & LowRank;

/** Marks the classes made by the mixin. */
const BRAND = Symbol("ConvLoRA");

/** A class of low-rank convolutions made by `lora.ConvLoRA`. */
export interface LoRAConvClass<L> {
  /** Throws `ERR_OPTION` for invalid sizes and invalid or unknown options, `ERR_OUT_OF_MEMORY`. */
  new (inChannels: number, outChannels: number, kernelSize: PerDimension, options?: LoRAConvOptions): L;
  /**
   * Makes a low-rank layer from `layer` and shares its weights. Throws `ERR_OPTION` if `layer` is not a convolution, and
   * for invalid or unknown options.
   */
  fromBase<C extends LoRAConv>(
    this: new (
      inChannels: number,
      outChannels: number,
      kernelSize: PerDimension,
      options?: LoRAConvOptions,
    ) => C,
    layer: ConvNd,
    options?: LoRAConvOptions,
  ): C;
}

/** The constructor type of `this` in `fromBase`. */
type Made<L> = new (
  inChannels: number,
  outChannels: number,
  kernelSize: PerDimension,
  options?: LoRAConvOptions,
) => L;

/** Methods of low-rank convolutions; they override methods of the mixin `LoRALayer`. */
const convMethods = {
  /** @internal */
  toPlain(): Module {
    const { inChannels, outChannels, kernelSize, geometry, training } = this;
    const { baseWeight: weight, baseBias: bias } = this;
    const Plain = [BaseConv1d, BaseConv2d, BaseConv3d][kernelSize.length - 1] as typeof BaseConv1d;
    const plain = new Plain(inChannels, outChannels, kernelSize, {
      groups: geometry.groups,
      weight,
      ...(bias ? { biasValues: bias } : {}),
    });
    return Object.assign(plain, { geometry, training });
  },

  /** @internal */
  createAdapter(options: FreshOptions): Adapter {
    const { inChannels, outChannels, kernelSize, geometry, weight } = this;
    const { r } = options;
    const { device } = weight;
    const shape = [r, inChannels / geometry.groups, ...kernelSize];
    const size = shape.reduce((n, d) => n * d, 1);
    checkAdapterRoom(nameKind(this), device, size + r * outChannels);
    const bound = Math.sqrt(r / size);
    const adapter = {
      ...describeAdapter(options),
      loraA: makeParameter(tensor(drawUniformValues(size, -bound, bound), { shape, device })),
      loraB: makeParameter(zeros([outChannels, r, ...listOnes(this)], { device })),
    };
    return this.completeAdapter(adapter, options);
  },

  /** @internal */
  computeFactors(adapter: Adapter): { loraA: Tensor; loraB: Tensor } {
    if (coversAllGroups(this, adapter))
      throw createRefusal(ADAPTER_REFUSALS.groupedMerge, nameKind(this), `${this.geometry.groups} groups`);
    const { loraA, loraB } = adapter;
    return { loraA: loraA.reshape(adapter.r, -1), loraB: loraB.reshape(this.outChannels, adapter.r) };
  },

  /** @internal */
  buildPlainAdapter(name: string): Adapter {
    const adapter = this.findAdapter(name);
    const { groups } = this.geometry;
    if (groups === 1 || coversAllGroups(this, adapter)) return adapter;
    if (adapter.magnitude !== undefined)
      throw createRefusal(ADAPTER_REFUSALS.groupedDora, nameKind(this), `${groups} groups`);
    const { loraA, r, loraAlpha, useRslora } = adapter;
    return {
      ...adapter,
      r: r * groups,
      loraAlpha: loraAlpha * (useRslora ? Math.sqrt(groups) : groups),
      loraA: scope(() => expandAcrossGroups(loraA, groups)),
    };
  },

  /** @internal */
  computeStoredShape(part: AdapterPart, r: number): readonly number[] {
    const { inChannels, outChannels, kernelSize, geometry } = this;
    if (part === "A") return [r, inChannels, ...kernelSize];
    if (part === "B") return [outChannels, r / geometry.groups, ...listOnes(this)];
    return part === "bias" ? [outChannels] : [1, outChannels, ...listOnes(this)];
  },

  /** @internal */
  computeBroadcastShape(shape: readonly number[]): number[] {
    const channels = shape.length - 1 - this.kernelSize.length;
    return shape.map((_, d) => (d === channels ? -1 : 1));
  },
} satisfies Partial<LowRank> & ThisType<LoRAConv>;

function mixin<T extends LayerClass<ConvNd>>(Base: T): LoRAConvClass<InstanceType<T> & LoRAConv> {
  checkBaseClass("lora.ConvLoRA", Base, ConvNd, "a class of convolutions, such as nn.Conv2d");
  abstract class Layer extends LoRALayer(Base) {
    // eslint-disable-next-line @typescript-eslint/no-explicit-any
    constructor(...args: any[]) {
      const [inChannels, outChannels, , given] = args as [unknown, unknown, unknown, LoRAConvOptions?];
      const options = checkLayer(nameOfClass(Base), given, { inChannels, outChannels });
      super(...args);
      this.mergeWeights = options.mergeWeights ?? true;
      const { r = 0, loraAlpha = 1 } = options;
      if (r > 0) this.startWith(this.createAdapter({ ...options, r, loraAlpha }));
    }

    static fromBase<L extends LoRAConv>(this: Made<L>, layer: ConvNd, options: LoRAConvOptions = {}): L {
      const Convolution = ConvNd as unknown as abstract new () => ConvNd;
      checkBase(nameOfClass(Base), layer, Convolution, "a convolution", options);
      const { inChannels, outChannels, kernelSize, weight, bias, geometry, training } = layer;
      const shared = { groups: geometry.groups, weight, ...(bias ? { biasValues: bias } : {}) };
      const lora = new this(inChannels, outChannels, kernelSize, { ...options, ...shared });
      // No option can express uneven padding, so the geometry is copied.
      return Object.assign(lora, { geometry, training });
    }

    override forward(x: Tensor): Tensor {
      // A user-defined class keeps its own forward.
      if (Base.prototype.forward !== ConvNd.prototype.forward)
        return computeOverWeight(this, () => super.forward(x));
      if (!this.adapts) return this.runWithBase(() => super.forward(x));
      checkConvInput(nameKind(this), this, x);
      const { baseWeight: weight, geometry } = this;
      return runByRows(this, x, (part, shares) =>
        composeForward(this, part, shares, {
          base: (given, bias) => convolve(given, weight, bias, geometry),
          lowRank: (given, adapter, scaling) => convolveLowRank(this, given, adapter, scaling),
        }),
      );
    }
  }
  addMethods(Layer, convMethods);
  Object.defineProperty(Layer.prototype, BRAND, { value: true });
  return Layer as unknown as LoRAConvClass<InstanceType<T> & LoRAConv>;
}

const CONV_FIELDS = ["inChannels", "outChannels", "kernelSize", "geometry", "weight", "bias"];

function registerConv(Base: Function, Low: Function): void {
  registerStandard(Base, CONV_FIELDS);
  registerStandard(Low, [...CONV_FIELDS, ...LORA_FIELDS]);
}

// These are functions rather than private methods because own-class.ts uses the methods above on other classes.

/** Returns the name of the low-rank class over `Base` for messages. A user-defined class may have any name. */
function nameOfClass({ name }: { name: string }): string {
  return /^Conv[123]d$/.test(name) ? `lora.${name}` : `lora.ConvLoRA(${name})`;
}

function nameKind({ kernelSize }: ConvNd): string {
  return `lora.Conv${kernelSize.length}d`;
}

function listOnes({ kernelSize }: ConvNd): number[] {
  return kernelSize.map(() => 1);
}

/** Whether A covers the channels of all groups, as in PEFT. */
function coversAllGroups({ geometry, inChannels }: ConvNd, { loraA }: Adapter): boolean {
  return geometry.groups > 1 && loraA.shape[1] === inChannels;
}

function convolveLowRank(layer: ConvNd, x: Tensor, adapter: Adapter, scaling: number): Tensor {
  const { geometry, kernelSize } = layer;
  const { loraA, loraB } = adapter;
  const { groups } = geometry;
  const dims = kernelSize.length;
  if (groups === 1 || coversAllGroups(layer, adapter)) {
    const h = convolve(x, loraA, null, { ...geometry, groups: 1 }).mul(scaling);
    return convolve(h, loraB, null, createPointwise(dims, groups));
  }
  // A is shared by all groups.
  const copies = loraA.concat(
    Array.from({ length: groups - 1 }, () => loraA),
    0,
  );
  return convolve(
    convolve(x, copies, null, geometry).mul(scaling),
    loraB,
    null,
    createPointwise(dims, groups),
  );
}

/**
 * The mixin for low-rank convolutions, also usable with `instanceof`. y = W ⋆ x + b + s·B ⋆ A ⋆ drop(x).
 * A is a convolution to r channels with the layer's stride, padding and dilation; B is a pointwise convolution to the
 * outputs. Shapes: A [r, in / groups, *kernel], B [out, r, 1, …], so that s·B·A has the weight's shape and can be merged.
 * With groups, all groups share A, and each has its rows of B. A starts as U(±1/√(in / groups · ∏ kernel)), B at zero.
 *
 * An adapter from PEFT for a grouped layer keeps PEFT's shapes: A [r, in, *kernel] covers all channels, and
 * B [out, r / groups, 1, …] is grouped. Such an adapter cannot be merged.
 */
export const ConvLoRA = Object.defineProperty(mixin, Symbol.hasInstance, {
  value: (value: unknown): boolean => typeof value === "object" && value !== null && BRAND in value,
}) as typeof mixin & {
  /** `layer instanceof ConvLoRA`: whether the mixin made the layer. */
  [Symbol.hasInstance](value: unknown): value is LoRAConv;
};

/** One-dimensional low-rank convolution; see `ConvLoRA`. */
export class Conv1d extends ConvLoRA(BaseConv1d) {
  static {
    registerConv(BaseConv1d, this);
  }
}

/** Two-dimensional low-rank convolution; see `ConvLoRA`. */
export class Conv2d extends ConvLoRA(BaseConv2d) {
  static {
    registerConv(BaseConv2d, this);
  }
}

/** Three-dimensional low-rank convolution; see `ConvLoRA`. */
export class Conv3d extends ConvLoRA(BaseConv3d) {
  static {
    registerConv(BaseConv3d, this);
  }
}
