/** The methods of low-rank layers that find, add, replace and remove adapters. */
import { formatValue } from "../../arguments/check.js";
import { didYouMean } from "../../arguments/suggest.js";
import { LowrankError } from "../../errors.js";
import type { Module } from "../../nn/module.js";
import { keep } from "../../tensor/scope.js";
import { makeParameter, type Tensor } from "../../tensor/tensor.js";
import { listParts, listTensors, setPart, mergeStart, type Adapter, type AdapterPart } from "./adapter.js";
import type { Active, AnyLoRALayer, LowRank } from "./any-layer.js";
import { isDisabled } from "./disabled.js";
import { forgetNorms } from "./dora.js";
import { release } from "./release.js";
import { findAdapterPerRow } from "./rows.js";
import { isStandard } from "./standard.js";

/** A layer with the map of its adapters, which others only read. */
type Owner = AnyLoRALayer & { readonly adapters: Map<string, Adapter> };

export const adapterMethods = {
  get r(): number {
    return findFirstActive(this)?.r ?? 0;
  },
  get loraAlpha(): number {
    return findFirstActive(this)?.loraAlpha ?? 1;
  },
  get scaling(): number {
    return findFirstActive(this)?.scaling ?? 1;
  },
  get loraDropout(): number {
    return findFirstActive(this)?.loraDropout ?? 0;
  },
  get loraA(): Tensor | undefined {
    return findFirstActive(this)?.loraA;
  },
  get loraB(): Tensor | undefined {
    return findFirstActive(this)?.loraB;
  },

  /** @internal */
  get adapts(): boolean {
    if (this.isDisabled) return false;
    const names = findAdapterPerRow();
    if (names !== undefined) return names.some((name) => name !== null && this.adapters.has(name));
    return this.active.length > 0 && !this.merged;
  },

  /** @internal */
  get isDisabled(): boolean {
    return isDisabled(this);
  },

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
  },

  /** @internal */
  buildPlainAdapter(name: string): Adapter {
    return mergeStart(this.findAdapter(name));
  },

  /** @internal */
  addAdapter(name: string, adapter: Adapter, active = true): void {
    if (this.adapters.has(name)) {
      throw new LowrankError("ERR_ADAPTER_EXISTS", `an adapter named "${name}" already exists`);
    }
    if (active) this.unmerge();
    this.adapters.set(name, adapter);
    if (active) this.active.push({ name, weight: 1 });
    if (this.weight.requiresGrad) this.weight.requiresGrad = false;
  },

  /** @internal */
  startWith(adapter: Adapter): void {
    this.addAdapter("default", adapter);
    this.byHand = true;
  },

  /** @internal */
  replacePart(name: string, part: AdapterPart, tensor: Tensor): void {
    const adapter = this.findAdapter(name);
    const old = listParts(adapter).find(([other]) => other === part)?.[1];
    if (old === tensor) return;
    if (this.active.some((a) => a.name === name)) this.unmerge();
    keep(tensor);
    makeParameter(tensor, old?.requiresGrad ?? true);
    setPart(adapter, part, tensor);
    release(old);
  },

  /** @internal */
  removeAdapter(name: string): void {
    const adapter = this.adapters.get(name);
    if (adapter === undefined) return;
    if (this.active.some((a) => a.name === name)) this.unmerge();
    this.active = this.active.filter((a) => a.name !== name);
    this.adapters.delete(name);
    for (const tensor of listTensors(adapter)) release(tensor);
    if (![...this.adapters.values()].some(({ magnitude }) => magnitude)) forgetNorms(this);
  },

  /** @internal */
  setActive(active: readonly Active[]): void {
    const present = active.filter((a) => this.adapters.has(a.name));
    // A merged layer stays merged if nothing changes.
    if (JSON.stringify(present) === JSON.stringify(this.active)) return;
    this.unmerge();
    this.active = present;
  },

  /** @internal */
  toUnloaded(): Module {
    this.unmerge();
    const { replaced } = this;
    // A new object would lack the fields of a user-defined class.
    if (replaced === null) return this.byHand && isStandard(this) ? this.toPlain() : this;
    // The weights may have been moved or loaded since the replacement.
    const base = replaced.module as Pick<Owner, "weight" | "bias"> & Module;
    base.weight = this.weight;
    if (this.bias !== undefined) base.bias = this.bias;
    base.training = this.training;
    return base;
  },
} satisfies Partial<LowRank> & ThisType<Owner>;

/** Yields the trained tensors of all adapters, by the names of the layer's parameters. */
export function* listAdapterParameters(
  layer: AnyLoRALayer,
): IterableIterator<[name: string, tensor: Tensor]> {
  for (const [name, adapter] of layer.adapters) {
    for (const [part, tensor] of listParts(adapter)) yield [layer.formatParameterName(name, part), tensor];
  }
}

/** Returns the first active adapter. */
function findFirstActive(layer: AnyLoRALayer): Adapter | undefined {
  const name = layer.active[0]?.name;
  return name === undefined ? undefined : layer.adapters.get(name);
}
