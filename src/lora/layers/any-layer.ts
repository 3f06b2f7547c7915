/** The interface of a low-rank layer, whatever its base. */
import type { Module } from "../../nn/module.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Adapter, AdapterPart, FreshOptions } from "./adapter.js";
import type { SquaredNorms } from "./dora.js";

/** Any layer made by the mixin `LoRALayer`, whatever its base. */
export interface LowRank extends Module {
  /** All adapters by name, active or not. */
  readonly adapters: ReadonlyMap<string, Adapter>;
  /** Rank of the first active adapter; 0 without one. */
  readonly r: number;
  /** Alpha of the first active adapter; 1 without one. */
  readonly loraAlpha: number;
  /** The factor of the low-rank product of the first active adapter, usually `loraAlpha / r`; 1 without one. */
  readonly scaling: number;
  /** Dropout probability of the inputs of the first active adapter in training; 0 without one. */
  readonly loraDropout: number;
  /** A of the first active adapter; undefined without one. */
  readonly loraA: Tensor | undefined;
  /** B of the first active adapter; undefined without one. */
  readonly loraB: Tensor | undefined;
  /** Whether `weight` is currently W + ΔW. */
  readonly merged: boolean;
  /** Whether `eval()` merges and `train()` unmerges: loralib's `merge_weights`. */
  mergeWeights: boolean;
  /**
   * Returns a difference in the weight's shape: scaling · B·A of the adapter `name`, or without `name` the difference that
   * merging adds for all active adapters, DoRA's rescaling included. Throws `ERR_UNKNOWN_ADAPTER`.
   */
  deltaWeight(name?: string): Tensor;
  /** Replaces the weight by W + ΔW and keeps the base weight unchanged. Does nothing if already merged. */
  merge(): this;
  /** Restores the base weight, bit for bit. */
  unmerge(): this;

  /** @internal The active adapters. `r`, `loraAlpha`, `scaling`, `loraA` and `loraB` belong to the first. */
  active: Active[];
  /** @internal Whether the layer's constructor made the adapter "default". */
  byHand: boolean;
  /** @internal Whether parameters have PEFT's in-memory names; false if the constructor's adapter "default" is the only one. */
  readonly namedByAdapter: boolean;
  /** @internal The base weight, and the base bias if that was merged too, while the layer is merged. */
  unmergedWeight: { readonly tensor: Tensor; readonly bias?: Tensor | null | undefined } | null;
  /** @internal The layer that this one replaced in a model. */
  replaced: { readonly module: Module } | null;
  /** @internal The base weight, merged or not. */
  readonly baseWeight: Tensor;
  /** @internal The base bias, merged or not. */
  readonly baseBias: Tensor | null;
  /** @internal Whether forward currently has a low-rank path. */
  readonly adapts: boolean;
  /** @internal Whether adapters are currently disabled, for example by `withoutAdapters`. */
  readonly isDisabled: boolean;
  /** @internal The output dimension of the weight: 0, or 1 if it is stored as [in, out]. */
  readonly outputDim: number;
  /** @internal Makes an adapter in this layer's form, on its device, without adding it. */
  createAdapter(options: FreshOptions): Adapter;
  /** @internal Adds the bias and the magnitude that `options` ask for to a new adapter. */
  completeAdapter(adapter: Adapter, options: FreshOptions): Adapter;
  /** @internal Returns the adapter called `name`. Throws `ERR_UNKNOWN_ADAPTER`, listing the layer's adapters. */
  findAdapter(name: string): Adapter;
  /** @internal Returns matrices A [r, inputs per output] and B [outputs, r] with B·A = ΔW / scaling, for any form of adapter. */
  computeFactors(adapter: Adapter): { loraA: Tensor; loraB: Tensor };
  /** @internal B·A in the weight's shape. */
  computeProduct(adapter: Adapter): Tensor;
  /** @internal Returns the shape that broadcasts one value per output over a forward result of `shape`. */
  computeBroadcastShape(shape: readonly number[]): number[];
  /** @internal The cached squared norms of the weight. */
  squaredNorms: SquaredNorms | null;
  /** @internal Returns ‖W + scaling · B·A‖ per output, in the shape of a magnitude, without gradient. */
  createMagnitude(adapter: Adapter): Tensor;
  /** @internal Adds an adapter and freezes the layer's weight. */
  addAdapter(name: string, adapter: Adapter, active?: boolean): void;
  /** @internal Replaces one tensor of an adapter and disposes the old one. */
  replacePart(name: string, part: AdapterPart, tensor: Tensor): void;
  /** @internal Adds the adapter "default" of a layer constructed directly. */
  startWith(adapter: Adapter): void;
  /** @internal Removes an adapter and releases its tensors. */
  removeAdapter(name: string): void;
  /** @internal Makes a plain layer of the same kind, settings and mode that shares this layer's weights. */
  toPlain(): Module;
  /**
   * @internal Returns the replacement of this layer once all adapters are removed: the layer that it replaced, a new plain
   * layer, or the layer itself if it was constructed without an adapter.
   */
  toUnloaded(): Module;
  /** @internal Makes merged weights permanent and returns the base tensors that they replace. */
  settle(): Tensor[];
  /** @internal Sets the active adapters. */
  setActive(active: readonly Active[]): void;
  /** @internal Runs `forward` of the base layer, with the base weight if adapters are disabled or chosen per row. */
  runWithBase<R>(forward: () => R): R;
  /** @internal Returns the name of an adapter's parameter: loralib's, or PEFT's in-memory name. */
  formatParameterName(adapter: string, part: AdapterPart): string;
  /** @internal Returns PEFT's in-memory name of a part, relative to the layer's path. */
  nameInMemory(adapter: string, part: AdapterPart): string;
  /** @internal Returns the name of a part in PEFT's files, relative to the layer's path. */
  nameOnDisk(part: AdapterPart): string;
  /** @internal Returns the shape of a part of rank `r` in PEFT's files. */
  computeStoredShape(part: AdapterPart, r: number): readonly number[];
  /**
   * @internal Returns the adapter in the form of PEFT's files: itself, or for a form unknown to PEFT the equivalent adapter
   * of another rank. The caller owns the new tensors.
   */
  buildPlainAdapter(name: string): Adapter;
}

/** A low-rank layer with the weight and bias of its base. */
export interface AnyLoRALayer extends LowRank {
  weight: Tensor;
  bias?: Tensor | null | undefined;
}

/** An active adapter and its weight in the sum. */
export interface Active {
  name: string;
  weight: number;
}
