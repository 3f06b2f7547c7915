/** The mixin for all low-rank layers. Its methods are in `adapter-methods.ts`, `merge-methods.ts` and `name-methods.ts`. */
import type { Device } from "../../device/device.js";
import { Module } from "../../nn/module.js";
import { addMethods } from "../../tensor/methods.js";
import { isParameter, type Tensor } from "../../tensor/tensor.js";
import { listTensors, moveAdapter, type Adapter } from "./adapter.js";
import { adapterMethods, listAdapterParameters } from "./adapter-methods.js";
import type { Active, LowRank } from "./any-layer.js";
import { forgetNorms, type SquaredNorms } from "./dora.js";
import { mergeMethods } from "./merge-methods.js";
import { nameMethods } from "./name-methods.js";
import { checkBaseClass } from "./options.js";

export * from "./adapter.js";
export type { Active, AnyLoRALayer } from "./any-layer.js";

/** Any layer made by the mixin. */
export type LoRALayer = LowRank;

/** Marks classes made by the mixin; set on the prototype because a type declaration cannot name it. */
const BRAND = Symbol("LoRALayer");

/** A class of layers with any constructor. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type LayerClass<L> = abstract new (...args: any[]) => L;

function mixin<
  T extends LayerClass<
    Module & {
      /** The weight that forward uses; dimension 0 is the output dimension unless the layer overrides `outputDim`. */
      weight: Tensor;
      /** The bias that forward adds; null or undefined for none. */
      bias?: Tensor | null | undefined;
    }
  >,
>(Base: T): T & LayerClass<LowRank> {
  checkBaseClass("lora.LoRALayer", Base, Module, "a class of modules with a weight, such as nn.Linear");
  // eslint-disable-next-line @typescript-eslint/no-unsafe-declaration-merging
  interface Layer extends LowRank {}
  abstract class Layer extends Base {
    readonly adapters = new Map<string, Adapter>();
    /** @internal */
    active: Active[] = [];
    mergeWeights = true;
    /** @internal */
    byHand = false;
    /** @internal */
    unmergedWeight: { readonly tensor: Tensor; readonly bias?: Tensor | null | undefined } | null = null;
    /** @internal */
    replaced: { readonly module: Module } | null = null;
    /** @internal */
    squaredNorms: SquaredNorms | null = null;

    override train(mode = true): this {
      super.train(mode);
      if (this.mergeWeights && this.active.length > 0) {
        if (mode) this.unmerge();
        else this.merge();
      }
      return this;
    }

    override *ownParameters(): IterableIterator<[string, Tensor]> {
      const base = this.unmergedWeight;
      if (base !== null) yield ["weight", base.tensor];
      for (const [name, tensor] of super.ownParameters())
        if (name !== "weight" || base === null) yield [name, tensor];
      if (base?.bias && isParameter(base.bias)) yield ["bias", base.bias];
      yield* listAdapterParameters(this);
    }

    override *ownState(): IterableIterator<[string, Tensor]> {
      // A frozen weight from a file is not a parameter but still belongs to the state.
      const named = new Map<string, Tensor>([["weight", this.baseWeight]]);
      if (this.baseBias !== null) named.set("bias", this.baseBias);
      for (const [name, tensor] of super.ownState()) named.set(name, tensor);
      yield* named;
    }

    /** @internal */
    override beforeLoad(): void {
      this.unmerge();
      super.beforeLoad();
    }

    override to(device: Device): this {
      this.unmerge();
      forgetNorms(this);
      super.to(device);
      for (const adapter of this.adapters.values()) moveAdapter(adapter, device);
      return this;
    }

    override dispose(): void {
      this.unmerge();
      forgetNorms(this);
      super.dispose();
      for (const adapter of this.adapters.values())
        for (const tensor of listTensors(adapter)) tensor.dispose();
    }
  }
  addMethods(Layer, adapterMethods, mergeMethods, nameMethods);
  Object.defineProperty(Layer.prototype, BRAND, { value: true });
  return Layer;
}

/**
 * The mixin, also usable with `instanceof`: an instance of `class Linear extends LoRALayer(nn.Linear)` is an instance of
 * both `nn.Linear` and `LoRALayer`.
 */
export const LoRALayer = Object.defineProperty(mixin, Symbol.hasInstance, {
  value: (value: unknown): boolean => typeof value === "object" && value !== null && BRAND in value,
}) as typeof mixin & {
  /** `layer instanceof LoRALayer`: whether the mixin made the layer. */
  [Symbol.hasInstance](value: unknown): value is LowRank & {
    /** The weight that forward uses now: the base weight, or the merged one if `merged`. `stateDict()` holds the base weight. */
    weight: Tensor;
    /** The bias that forward adds now; null or undefined for none. */
    bias?: Tensor | null | undefined;
  };
};
