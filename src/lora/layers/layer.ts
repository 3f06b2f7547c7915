/** The mixin for all low-rank layers: adapters by name, and merging. */
import { formatValue } from "../../arguments/check.js";
import { zeros } from "../../tensor/create.js";
import { LowrankError } from "../../errors.js";
import { adoptReplacement, Module } from "../../nn/module.js";
import { keep, noGrad, scope } from "../../tensor/scope.js";
import { isParameter, makeParameter, type Tensor } from "../../tensor/tensor.js";
import { didYouMean } from "../../arguments/suggest.js";
import {
  listParts,
  setPart,
  listTensors,
  withoutStart,
  type Adapter,
  type FreshOptions,
  type AdapterPart,
} from "./adapter.js";
import type { Active, AnyLoRALayer, LowRank } from "./any-layer.js";
import { isOff } from "./disabled.js";
import { checkBaseClass } from "./options.js";
import { adaptedWeight, computeDelta } from "./adapted-weight.js";
import { computeNorms, type SquaredNorms } from "./dora.js";
import { QUANTISED_REFUSALS } from "../../refusals/quantised.js";
import { checkMergeable, refuseQuantised } from "./quantised.js";
import { release } from "./release.js";
import { adapterPerRow } from "./rows.js";
import { isStandard } from "./standard.js";
import { activeShares, computeBias, withStart } from "./shares.js";

export * from "./adapter.js";
export type { Active, AnyLoRALayer } from "./any-layer.js";

/** Any layer made by the mixin. */
export type LoRALayer = LowRank;

type WithWeight = Module & { weight: Tensor; bias?: Tensor | null | undefined };

/** Marks classes made by the mixin; set on the prototype because a type declaration cannot name it. */
const BRAND = Symbol("LoRALayer");
/** Names in the style of loralib, which itself has only A and B. */
const PLAIN_NAMES = { A: "lora_A", B: "lora_B", bias: "lora_B_bias", magnitude: "lora_magnitude_vector" };

/** Returns the first active adapter. */
function findFirstActive(layer: {
  active: readonly Active[];
  adapters: ReadonlyMap<string, Adapter>;
}): Adapter | undefined {
  const name = layer.active[0]?.name;
  return name === undefined ? undefined : layer.adapters.get(name);
}

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

    get r(): number {
      return findFirstActive(this)?.r ?? 0;
    }
    get loraAlpha(): number {
      return findFirstActive(this)?.loraAlpha ?? 1;
    }
    get scaling(): number {
      return findFirstActive(this)?.scaling ?? 1;
    }
    get loraDropout(): number {
      return findFirstActive(this)?.loraDropout ?? 0;
    }
    get loraA(): Tensor | undefined {
      return findFirstActive(this)?.loraA;
    }
    get loraB(): Tensor | undefined {
      return findFirstActive(this)?.loraB;
    }
    get merged(): boolean {
      return this.unmergedWeight !== null;
    }

    /** @internal */
    get namedByAdapter(): boolean {
      return !(this.byHand && this.adapters.size === 1 && this.adapters.has("default"));
    }

    /** @internal */
    get baseWeight(): Tensor {
      return this.unmergedWeight?.tensor ?? this.weight;
    }

    /** @internal */
    get baseBias(): Tensor | null {
      const { unmergedWeight: unmerged } = this;
      return (unmerged?.bias === undefined ? this.bias : unmerged.bias) ?? null;
    }

    /** @internal */
    get outputDim(): number {
      return 0;
    }

    /** @internal */
    abstract freshAdapter(options: FreshOptions): Adapter;
    /** @internal */
    abstract shapeOnDisk(part: AdapterPart, r: number): readonly number[];
    /** @internal */
    abstract plain(): Module;

    /** @internal Adds the bias and the magnitude that `options` ask for. */
    completeAdapter(adapter: Adapter, { loraBias, useDora }: FreshOptions): Adapter {
      if (loraBias)
        adapter.loraBias = makeParameter(
          zeros(this.shapeOnDisk("bias", adapter.r), { device: this.weight.device }),
        );
      if (useDora) {
        refuseQuantised(this.baseWeight, QUANTISED_REFUSALS.dora);
        adapter.magnitude = makeParameter(this.createMagnitude(adapter));
      }
      return adapter;
    }

    /** @internal */
    createMagnitude(adapter: Adapter): Tensor {
      return computeNorms(this, adapter, adapter.scaling);
    }

    /** @internal */
    factors({ loraA, loraB }: Adapter): { loraA: Tensor; loraB: Tensor } {
      return { loraA, loraB };
    }

    /** @internal */
    product(adapter: Adapter): Tensor {
      const { loraA, loraB } = this.factors(adapter);
      if (this.outputDim === 1) return loraA.matmul(loraB, { transA: true, transB: true });
      return loraB.matmul(loraA).reshape(this.weight.shape);
    }

    /** @internal */
    alongOutputs(): number[] {
      return [-1];
    }

    /** @internal */
    plainAdapter(name: string): Adapter {
      return withoutStart(this.findAdapter(name));
    }

    /** @internal */
    findAdapter(name: string): Adapter {
      const adapter = this.adapters.get(name);
      if (adapter === undefined) {
        const loaded = [...this.adapters.keys()].map((n) => `"${n}"`).join(", ");
        throw new LowrankError(
          "ERR_UNKNOWN_ADAPTER",
          `there is no adapter named ${formatValue(name)}${didYouMean(name, this.adapters.keys())}; loaded: ${loaded || "none"}`,
        );
      }
      return adapter;
    }

    deltaWeight(name?: string): Tensor {
      if (name !== undefined) {
        const adapter = this.findAdapter(name);
        return computeDelta(this, withStart({ adapter, scaling: adapter.scaling }));
      }
      const shares = activeShares(this);
      if (shares.some(({ adapter }) => adapter.magnitude))
        return adaptedWeight(this, shares).sub(this.baseWeight.to("f32"));
      return computeDelta(this, shares);
    }

    /** @internal */
    get adapts(): boolean {
      if (this.isDisabled) return false;
      const names = adapterPerRow();
      if (names !== undefined) return names.some((name) => name !== null && this.adapters.has(name));
      return this.active.length > 0 && !this.merged;
    }

    /** @internal */
    get isDisabled(): boolean {
      return isOff(this);
    }

    /** @internal */
    addAdapter(name: string, adapter: Adapter, active = true): void {
      if (this.adapters.has(name)) {
        throw new LowrankError("ERR_ADAPTER_EXISTS", `an adapter named "${name}" already exists`);
      }
      if (active) this.unmerge();
      this.adapters.set(name, adapter);
      if (active) this.active.push({ name, weight: 1 });
      if (this.weight.requiresGrad) this.weight.requiresGrad = false;
    }

    /** @internal */
    startWith(adapter: Adapter): void {
      this.addAdapter("default", adapter);
      this.byHand = true;
    }

    /** @internal */
    unloaded(): Module {
      this.unmerge();
      const { replaced } = this;
      // A new object would lack the fields of a user-defined class.
      if (replaced === null) return this.byHand && isStandard(this) ? this.plain() : this;
      // The weights may have been moved or loaded since the replacement.
      const base = replaced.module as WithWeight;
      base.weight = this.weight;
      if (this.bias !== undefined) base.bias = this.bias;
      base.training = this.training;
      return base;
    }

    /** @internal */
    settle(): Tensor[] {
      const { unmergedWeight: base } = this;
      if (base === null) return [];
      makeParameter(this.weight, false);
      if (base.bias !== undefined && this.bias) makeParameter(this.bias, false);
      this.unmergedWeight = null;
      return [base.tensor, ...(base.bias ? [base.bias] : [])];
    }

    /** @internal */
    removeAdapter(name: string): void {
      const adapter = this.adapters.get(name);
      if (adapter === undefined) return;
      if (this.active.some((a) => a.name === name)) this.unmerge();
      this.active = this.active.filter((a) => a.name !== name);
      this.adapters.delete(name);
      for (const tensor of listTensors(adapter)) release(tensor);
      if (![...this.adapters.values()].some(({ magnitude }) => magnitude)) forgetNorms(this);
    }

    /** @internal */
    replacePart(name: string, part: AdapterPart, tensor: Tensor): void {
      const adapter = this.findAdapter(name);
      const old = listParts(adapter).find(([own]) => own === part)?.[1];
      if (old === tensor) return;
      if (this.active.some((a) => a.name === name)) this.unmerge();
      keep(tensor);
      makeParameter(tensor, old?.requiresGrad ?? true);
      setPart(adapter, part, tensor);
      release(old);
    }

    /** @internal */
    setActive(active: readonly Active[]): void {
      const own = active.filter((a) => this.adapters.has(a.name));
      // A merged layer stays merged if nothing changes.
      if (JSON.stringify(own) === JSON.stringify(this.active)) return;
      this.unmerge();
      this.active = own;
    }

    /**
     * Replaces the weight by W + ΔW in a new tensor. The base tensor is not modified, so `unmerge` restores it bit for bit.
     * Does nothing if already merged.
     */
    merge(): this {
      if (this.merged || this.active.length === 0) return this;
      const { weight: base, bias } = this;
      checkMergeable(base);
      const shares = activeShares(this);
      const merged = noGrad(() =>
        scope(() => ({
          weight: adaptedWeight(this, shares).to(base.dtype),
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
    }

    unmerge(): this {
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
    }

    override train(mode = true): this {
      super.train(mode);
      if (this.mergeWeights && this.active.length > 0) {
        if (mode) this.unmerge();
        else this.merge();
      }
      return this;
    }

    /** @internal */
    withBase<R>(forward: () => R): R {
      const { unmergedWeight: base, weight, bias } = this;
      if (base === null || !(this.isDisabled || adapterPerRow())) return forward();
      this.weight = base.tensor;
      if (base.bias !== undefined) this.bias = base.bias;
      try {
        return forward();
      } finally {
        this.weight = weight;
        if (base.bias !== undefined) this.bias = bias ?? null;
      }
    }

    /** @internal */
    parameterName(adapter: string, part: AdapterPart): string {
      return this.namedByAdapter ? this.nameInMemory(adapter, part) : PLAIN_NAMES[part];
    }

    /** @internal */
    nameInMemory(adapter: string, part: AdapterPart): string {
      if (part === "magnitude") return `lora_magnitude_vector.${adapter}.weight`;
      return part === "bias" ? `lora_B.${adapter}.bias` : `lora_${part}.${adapter}.weight`;
    }

    /** @internal */
    nameOnDisk(part: AdapterPart): string {
      if (part === "magnitude") return "lora_magnitude_vector";
      return part === "bias" ? "lora_B.bias" : `lora_${part}.weight`;
    }

    override *ownParameters(): IterableIterator<[string, Tensor]> {
      const base = this.unmergedWeight;
      if (base !== null) yield ["weight", base.tensor];
      for (const [name, tensor] of super.ownParameters())
        if (name !== "weight" || base === null) yield [name, tensor];
      if (base?.bias && isParameter(base.bias)) yield ["bias", base.bias];
      for (const [name, adapter] of this.adapters) {
        for (const [part, tensor] of listParts(adapter)) yield [this.parameterName(name, part), tensor];
      }
    }

    override *ownState(): IterableIterator<[string, Tensor]> {
      // A frozen weight from a file is not a parameter but still belongs to the state.
      const named = new Map<string, Tensor>([["weight", this.baseWeight]]);
      const bias = this.baseBias;
      if (bias !== null) named.set("bias", bias);
      for (const [name, tensor] of super.ownState()) named.set(name, tensor);
      yield* named;
    }

    /** @internal */
    override beforeLoad(): void {
      this.unmerge();
      super.beforeLoad();
    }

    override to(device: Parameters<Module["to"]>[0]): this {
      this.unmerge();
      forgetNorms(this);
      super.to(device);
      for (const adapter of this.adapters.values()) {
        for (const [part, tensor] of listParts(adapter)) {
          const moved = tensor.to(device);
          if (moved !== tensor) setPart(adapter, part, adoptReplacement(tensor, moved));
        }
        const { start } = adapter;
        for (const key of ["loraA", "loraB"] as const) {
          const moved = start?.[key].to(device);
          if (start !== undefined && moved !== undefined && moved !== start[key])
            start[key] = adoptReplacement(start[key], moved);
        }
      }
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

/** Releases the norms cached for DoRA. */
function forgetNorms(layer: AnyLoRALayer): void {
  release(layer.squaredNorms?.squares);
  layer.squaredNorms = null;
}
