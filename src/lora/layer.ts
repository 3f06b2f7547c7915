/** What every low-rank layer is: the mixin, its adapters by name, and merging, written once. */
import { AsyncLocalStorage } from "node:async_hooks";

import { LowrankError } from "../errors.js";
import { adopted, Module } from "../nn/module.js";
import { keep, noGrad, scope } from "../scope.js";
import { Tensor } from "../tensor.js";

/** One adapter of one layer: h = W·x + scaling · B·A·x (Hu et al. 2021, section 4.1). */
export interface Adapter {
  readonly r: number;
  readonly loraAlpha: number;
  /** loraAlpha / r, or loraAlpha / √r with rank-stabilised scaling (Kalajdzievski 2023). */
  readonly scaling: number;
  readonly loraDropout: number;
  loraA: Tensor;
  loraB: Tensor;
}

/** Loralib's options, common to all layers. */
export interface LoRAOptions {
  /** Rank; 0 makes a plain layer whose weight is trained. */
  r?: number;
  loraAlpha?: number;
  loraDropout?: number;
  /** Whether `eval()` merges and `train()` unmerges. */
  mergeWeights?: boolean;
}

// Mixins need a constructor type that takes anything.
// eslint-disable-next-line @typescript-eslint/no-explicit-any
type Constructor<T> = abstract new (...args: any[]) => T;
type WithWeight = Module & { weight: Tensor; bias?: Tensor | null };

/** What the mixin adds to a layer. */
export interface LoRALayer extends Module {
  readonly adapters: ReadonlyMap<string, Adapter>;
  /** Of the first active adapter, as are the five below; 0 without one. */
  readonly r: number;
  readonly loraAlpha: number;
  readonly scaling: number;
  readonly loraDropout: number;
  readonly loraA: Tensor | undefined;
  readonly loraB: Tensor | undefined;
  readonly merged: boolean;
  mergeWeights: boolean;
  /** scaling · B·A of the active adapters, in the weight's shape. */
  deltaWeight(): Tensor;
  /** Puts W + ΔW in the place of the weight; the base stays as it is. Merging twice is merging once. */
  merge(): this;
  /** Restores the base's weight, to the bit. */
  unmerge(): this;
}

/** Any layer that the mixin made, with what the rest of this folder works on. */
export interface AnyLoRALayer extends LoRALayer {
  weight: Tensor;
  bias?: Tensor | null;
  /** Those that count, first the one that the plain fields show. */
  active: Active[];
  /** Whether parameters are named as PEFT names them in memory. */
  namedByAdapter: boolean;
  /** The base's weight while a merged one stands in its place. */
  unmergedWeight: { readonly tensor: Tensor } | null;
  /** The layer that this one replaced in a model. */
  replaced: { readonly module: Module } | null;
  /** The base's own weight, merged or not. */
  readonly baseWeight: Tensor;
  /** Whether forward has a low-rank path just now. */
  readonly adapts: boolean;
  readonly isDisabled: boolean;
  /** Adds an adapter; the layer's own weight is frozen from then on. */
  addAdapter(name: string, adapter: Adapter, active?: boolean): void;
  /** Drops an adapter and its tensors. */
  removeAdapter(name: string): void;
  /** Chooses which adapters count. */
  setActive(active: readonly Active[]): void;
  /** Runs `forward` of the base layer with the base's weight where adapters are off. */
  withBase<R>(forward: () => R): R;
  /** The name of a parameter of an adapter: loralib's, or PEFT's in memory. */
  parameterName(adapter: string, which: "A" | "B"): string;
  nameInMemory(adapter: string, which: "A" | "B"): string;
}

/** Which adapters count in forward, and how much. */
export interface Active {
  name: string;
  weight: number;
}

/** Marks what the mixin made: on the prototype, since a declaration cannot name it. */
const BRAND = Symbol("LoRALayer");
const disabled = new AsyncLocalStorage<ReadonlySet<Module>>();

/** Runs `fn`, in which the adapters of `layers` count for nothing. */
export function without<T>(layers: Iterable<Module>, fn: () => T): T {
  return disabled.run(new Set([...(disabled.getStore() ?? []), ...layers]), fn);
}

/** The adapter that a layer's plain fields show. */
function firstOf(layer: {
  active: readonly Active[];
  adapters: ReadonlyMap<string, Adapter>;
}): Adapter | undefined {
  const name = layer.active[0]?.name;
  return name === undefined ? undefined : layer.adapters.get(name);
}

function mixin<T extends Constructor<WithWeight>>(Base: T): T & Constructor<AnyLoRALayer> {
  abstract class Layer extends Base {
    readonly adapters = new Map<string, Adapter>();
    active: Active[] = [];
    mergeWeights = true;
    namedByAdapter = false;
    unmergedWeight: { readonly tensor: Tensor } | null = null;
    replaced: { readonly module: Module } | null = null;

    get r(): number {
      return firstOf(this)?.r ?? 0;
    }
    get loraAlpha(): number {
      return firstOf(this)?.loraAlpha ?? 1;
    }
    get scaling(): number {
      return firstOf(this)?.scaling ?? 1;
    }
    get loraDropout(): number {
      return firstOf(this)?.loraDropout ?? 0;
    }
    get loraA(): Tensor | undefined {
      return firstOf(this)?.loraA;
    }
    get loraB(): Tensor | undefined {
      return firstOf(this)?.loraB;
    }
    get merged(): boolean {
      return this.unmergedWeight !== null;
    }

    get baseWeight(): Tensor {
      return this.unmergedWeight?.tensor ?? this.weight;
    }

    abstract deltaWeight(): Tensor;

    get adapts(): boolean {
      return this.active.length > 0 && !this.merged && !this.isDisabled;
    }

    get isDisabled(): boolean {
      return disabled.getStore()?.has(this) ?? false;
    }

    addAdapter(name: string, adapter: Adapter, active = true): void {
      if (this.adapters.has(name)) {
        throw new LowrankError("ERR_ADAPTER_EXISTS", `there is an adapter named "${name}" already`);
      }
      if (active) this.unmerge();
      this.adapters.set(name, adapter);
      if (active) this.active.push({ name, weight: 1 });
      if (this.weight.requiresGrad) this.weight.requiresGrad = false;
    }

    removeAdapter(name: string): void {
      const adapter = this.adapters.get(name);
      if (adapter === undefined) return;
      if (this.active.some((a) => a.name === name)) this.unmerge();
      this.active = this.active.filter((a) => a.name !== name);
      this.adapters.delete(name);
      adapter.loraA.dispose();
      adapter.loraB.dispose();
    }

    setActive(active: readonly Active[]): void {
      const own = active.filter((a) => this.adapters.has(a.name));
      // What is merged already stays so.
      if (JSON.stringify(own) === JSON.stringify(this.active)) return;
      this.unmerge();
      this.active = own;
    }

    /**
     * Puts W + ΔW in the place of the weight, as a new tensor: the base stays as it is, so that
     * `unmerge` restores it to the bit. Merging twice is merging once.
     */
    merge(): this {
      if (this.merged || this.active.length === 0) return this;
      const base = this.weight;
      const merged = noGrad(() => scope(() => base.to("f32").add(this.deltaWeight()).to(base.dtype)));
      keep(merged);
      this.weight = merged;
      this.unmergedWeight = { tensor: base };
      return this;
    }

    unmerge(): this {
      if (this.unmergedWeight === null) return this;
      this.weight.dispose();
      this.weight = this.unmergedWeight.tensor;
      this.unmergedWeight = null;
      return this;
    }

    override train(mode = true): this {
      super.train(mode);
      if (this.mergeWeights && this.active.length > 0) {
        if (mode) this.unmerge();
        else this.merge();
      }
      return this;
    }

    withBase<R>(forward: () => R): R {
      if (this.unmergedWeight === null || !this.isDisabled) return forward();
      const merged = this.weight;
      this.weight = this.unmergedWeight.tensor;
      try {
        return forward();
      } finally {
        this.weight = merged;
      }
    }

    parameterName(adapter: string, which: "A" | "B"): string {
      return this.namedByAdapter ? this.nameInMemory(adapter, which) : `lora_${which}`;
    }

    nameInMemory(adapter: string, which: "A" | "B"): string {
      return `lora_${which}.${adapter}.weight`;
    }

    override *ownParameters(): IterableIterator<[string, Tensor]> {
      const base = this.unmergedWeight?.tensor;
      if (base !== undefined) yield ["weight", base];
      for (const [name, tensor] of super.ownParameters())
        if (name !== "weight" || base === undefined) yield [name, tensor];
      for (const [name, { loraA, loraB }] of this.adapters) {
        yield [this.parameterName(name, "A"), loraA];
        yield [this.parameterName(name, "B"), loraB];
      }
    }

    override *ownState(): IterableIterator<[string, Tensor]> {
      // A frozen weight of a file asks for no gradient, and is state all the same.
      const named = new Map<string, Tensor>([["weight", this.baseWeight]]);
      if (this.bias) named.set("bias", this.bias);
      for (const [name, tensor] of this.ownParameters()) named.set(name, tensor);
      yield* named;
    }

    override beforeLoad(): void {
      this.unmerge();
      super.beforeLoad();
    }

    override to(device: Parameters<Module["to"]>[0]): this {
      this.unmerge();
      super.to(device);
      for (const adapter of this.adapters.values()) {
        for (const key of ["loraA", "loraB"] as const) {
          const moved = adapter[key].to(device);
          if (moved === adapter[key]) continue;
          adapter[key] = adopted(adapter[key], moved);
        }
      }
      return this;
    }

    override dispose(): void {
      this.unmerge();
      super.dispose();
      for (const { loraA, loraB } of this.adapters.values()) {
        loraA.dispose();
        loraB.dispose();
      }
    }
  }
  Object.defineProperty(Layer.prototype, BRAND, { value: true });
  return Layer;
}

/**
 * The mixin, and the class of what it makes: `class Linear extends LoRALayer(nn.Linear)`, of which
 * `instanceof nn.Linear` and `instanceof LoRALayer` both hold.
 */
export const LoRALayer = Object.defineProperty(mixin, Symbol.hasInstance, {
  value: (value: unknown): boolean => typeof value === "object" && value !== null && BRAND in value,
}) as typeof mixin & { [Symbol.hasInstance](value: unknown): value is AnyLoRALayer };

/** alpha / r, or alpha / √r. */
export function scalingOf(r: number, loraAlpha: number, useRslora = false): number {
  return loraAlpha / (useRslora ? Math.sqrt(r) : r);
}

/** Refuses a rank that is no whole number of at least `least`, and other values that mean nothing. */
export function checkOptions(layer: string, { r, loraAlpha, loraDropout }: LoRAOptions, least = 0): void {
  if (r !== undefined && !(Number.isInteger(r) && r >= least)) {
    throw new LowrankError("ERR_OPTION", `${layer}: r is a whole number of at least ${least}, not ${r}`);
  }
  if (loraAlpha !== undefined && !Number.isFinite(loraAlpha)) {
    throw new LowrankError("ERR_OPTION", `${layer}: loraAlpha is a number, not ${loraAlpha}`);
  }
  if (loraDropout !== undefined && !(loraDropout >= 0 && loraDropout <= 1)) {
    throw new LowrankError("ERR_OPTION", `${layer}: loraDropout is a probability, not ${loraDropout}`);
  }
}

/** A and B of all active adapters as one: concatenated along the rank, with scaling and weight in B. */
export function combined(layer: AnyLoRALayer): { loraA: Tensor; loraB: Tensor; scaling: number } {
  const parts = layer.active.map(({ name, weight }) => ({
    ...(layer.adapters.get(name) as Adapter),
    weight,
  }));
  const [only] = parts;
  if (parts.length === 1 && only !== undefined) {
    return { loraA: only.loraA, loraB: only.loraB, scaling: only.scaling * only.weight };
  }
  const [firstA, ...restA] = parts.map((p) => p.loraA) as [Tensor, ...Tensor[]];
  const [firstB, ...restB] = parts.map((p) => p.loraB.mul(p.scaling * p.weight)) as [Tensor, ...Tensor[]];
  return { loraA: firstA.concat(restA, 0), loraB: firstB.concat(restB, 1), scaling: 1 };
}
