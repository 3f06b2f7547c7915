/** What the rest of this folder works on: any low-rank layer, whatever its base. */
import type { Module } from "../../nn/module.js";
import type { Tensor } from "../../tensor.js";
import type { Adapter, AdapterPart, FreshOptions } from "./adapter.js";
import type { SquaredNorms } from "./dora.js";

/** Any layer that the mixin made: what every low-rank layer has, whatever its base. */
export interface LowRank extends Module {
  /** Its adapters by name, those that are not active too. */
  readonly adapters: ReadonlyMap<string, Adapter>;
  /** Rank of the first active adapter; 0 without one. */
  readonly r: number;
  /** Alpha of the first active adapter; 1 without one. */
  readonly loraAlpha: number;
  /** What the product of the first active adapter is multiplied by, usually `loraAlpha / r`; 1 without one. */
  readonly scaling: number;
  /** Probability with which training drops inputs of the first active adapter; 0 without one. */
  readonly loraDropout: number;
  /** A of the first active adapter; undefined without one. */
  readonly loraA: Tensor | undefined;
  /** B of the first active adapter; undefined without one. */
  readonly loraB: Tensor | undefined;
  /** Whether W + ΔW stands in the place of the weight. */
  readonly merged: boolean;
  /** Whether `eval()` merges and `train()` unmerges: loralib's `merge_weights`. */
  mergeWeights: boolean;
  /**
   * In the weight's shape: scaling · B·A of the adapter `name`; or what merging adds for all active
   * ones, DoRA's rescaling with it. Throws `ERR_UNKNOWN_ADAPTER`.
   */
  deltaWeight(name?: string): Tensor;
  /** Puts W + ΔW in the place of the weight; the base stays as it is. Merging twice is merging once. */
  merge(): this;
  /** Restores the base's weight, to the bit. */
  unmerge(): this;

  /** @internal Those that count, first the one that the plain fields show. */
  active: Active[];
  /** @internal Whether its constructor gave it the adapter "default". */
  byHand: boolean;
  /** @internal Whether parameters are named as PEFT names them in memory: not so of a layer with its own "default" alone. */
  readonly namedByAdapter: boolean;
  /** @internal The base's weight, and its bias where that was merged too, while merged ones stand in their places. */
  unmergedWeight: { readonly tensor: Tensor; readonly bias?: Tensor | null | undefined } | null;
  /** @internal The layer that this one replaced in a model. */
  replaced: { readonly module: Module } | null;
  /** @internal The base's own weight, merged or not. */
  readonly baseWeight: Tensor;
  /** @internal The base's own bias, merged or not. */
  readonly baseBias: Tensor | null;
  /** @internal Whether forward has a low-rank path just now. */
  readonly adapts: boolean;
  /** @internal Whether adapters are off just now: `withoutAdapters` is running, say. */
  readonly isDisabled: boolean;
  /** @internal Which dimension of the weight counts outputs: 0, or 1 where it is stored as [in, out]. */
  readonly outputDim: number;
  /** @internal A new adapter in this layer's own form, on its device, not yet added. */
  freshAdapter(options: FreshOptions): Adapter;
  /** @internal A fresh adapter with the further parts that its options ask for. */
  completed(adapter: Adapter, options: FreshOptions): Adapter;
  /** @internal The adapter called `name`. Throws `ERR_UNKNOWN_ADAPTER`, listing those of the layer. */
  adapterOf(name: string): Adapter;
  /** @internal A [r, inputs of an output] and B [outputs, r], of which B·A is the difference, for any form. */
  factors(adapter: Adapter): { loraA: Tensor; loraB: Tensor };
  /** @internal B·A in the weight's shape. */
  product(adapter: Adapter): Tensor;
  /** @internal The shape that spreads one value an output over a forward's result of `shape`. */
  alongOutputs(shape: readonly number[]): number[];
  /** @internal What the norms of the weight were last found to be. */
  squaredNorms: SquaredNorms | null;
  /** @internal ‖W + scaling · B·A‖ of each output, in the shape of a magnitude; no gradient flows into it. */
  magnitudeOf(adapter: Adapter): Tensor;
  /** @internal Adds an adapter; the layer's own weight is frozen from then on. */
  addAdapter(name: string, adapter: Adapter, active?: boolean): void;
  /** @internal Puts `tensor` in the place of a part of an adapter, whose old tensor is disposed. */
  replacePart(name: string, part: AdapterPart, tensor: Tensor): void;
  /** @internal Adds the adapter "default" of a layer that is made by hand. */
  startWith(adapter: Adapter): void;
  /** @internal Drops an adapter and its tensors. */
  removeAdapter(name: string): void;
  /** @internal A plain layer of the same kind, settings and mode, whose weights are this one's. */
  plain(): Module;
  /**
   * @internal What stands in its place once all adapters are off: what it replaced, a new plain layer, or itself where it was made
   * without an adapter.
   */
  unloaded(): Module;
  /** @internal Lets merged weights be the layer's own; gives those that they replace. */
  settle(): Tensor[];
  /** @internal Chooses which adapters count. */
  setActive(active: readonly Active[]): void;
  /** @internal Runs `forward` of the base layer with the base's weight where adapters are off. */
  withBase<R>(forward: () => R): R;
  /** @internal The name of a parameter of an adapter: loralib's, or PEFT's in memory. */
  parameterName(adapter: string, part: AdapterPart): string;
  /** @internal PEFT's name of a part in memory, after the layer's path. */
  nameInMemory(adapter: string, part: AdapterPart): string;
  /** @internal What PEFT's file calls a part, after the layer's path. */
  nameOnDisk(part: AdapterPart): string;
  /** @internal The shape of a part of rank `r` in PEFT's file. */
  shapeOnDisk(part: AdapterPart, r: number): readonly number[];
  /**
   * @internal The adapter as PEFT's file holds it: itself, or for a form that PEFT does not have an equal one
   * of another rank, whose new tensors are the caller's.
   */
  plainAdapter(name: string): Adapter;
}

/** The same with what its base has, as the rest of this folder works on it. */
export interface AnyLoRALayer extends LowRank {
  weight: Tensor;
  bias?: Tensor | null | undefined;
}

/** Which adapters count in forward, and how much. */
export interface Active {
  name: string;
  weight: number;
}
