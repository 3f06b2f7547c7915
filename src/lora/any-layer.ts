/** What the rest of this folder works on: any low-rank layer, whatever its base. */
import type { Module } from "../nn/module.js";
import type { Tensor } from "../tensor.js";
import type { Adapter, AdapterPart, FreshOptions } from "./adapter.js";
import type { SquaredNorms } from "./dora.js";

/** What the mixin adds to a layer. */
export interface LowRank extends Module {
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
  /**
   * In the weight's shape: scaling · B·A of the adapter `name`; or what merging adds for all active
   * ones, DoRA's rescaling with it.
   */
  deltaWeight(name?: string): Tensor;
  /** Puts W + ΔW in the place of the weight; the base stays as it is. Merging twice is merging once. */
  merge(): this;
  /** Restores the base's weight, to the bit. */
  unmerge(): this;
}

/** Any layer that the mixin made, with what the rest of this folder works on. */
export interface AnyLoRALayer extends LowRank {
  weight: Tensor;
  bias?: Tensor | null;
  /** Those that count, first the one that the plain fields show. */
  active: Active[];
  /** Whether its constructor gave it the adapter "default". */
  byHand: boolean;
  /** Whether parameters are named as PEFT names them in memory: not so of a layer with its own "default" alone. */
  readonly namedByAdapter: boolean;
  /** The base's weight, and its bias where that was merged too, while merged ones stand in their places. */
  unmergedWeight: { readonly tensor: Tensor; readonly bias?: Tensor | null } | null;
  /** The layer that this one replaced in a model. */
  replaced: { readonly module: Module } | null;
  /** The base's own weight, merged or not. */
  readonly baseWeight: Tensor;
  /** The base's own bias, merged or not. */
  readonly baseBias: Tensor | null;
  /** Whether forward has a low-rank path just now. */
  readonly adapts: boolean;
  readonly isDisabled: boolean;
  /** Which dimension of the weight counts outputs: 0, or 1 where it is stored as [in, out]. */
  readonly outputDim: number;
  /** A new adapter in this layer's own form, on its device, not yet added. */
  freshAdapter(options: FreshOptions): Adapter;
  completed(adapter: Adapter, options: FreshOptions): Adapter;
  /** The adapter called `name`. Throws `ERR_UNKNOWN_ADAPTER`, listing those of the layer. */
  adapterOf(name: string): Adapter;
  /** A [r, inputs of an output] and B [outputs, r], of which B·A is the difference, for any form. */
  factors(adapter: Adapter): { loraA: Tensor; loraB: Tensor };
  /** B·A in the weight's shape. */
  product(adapter: Adapter): Tensor;
  /** The shape that spreads one value an output over a forward's result of `shape`. */
  alongOutputs(shape: readonly number[]): number[];
  /** What the norms of the weight were last found to be. */
  squaredNorms: SquaredNorms | null;
  /** ‖W + scaling · B·A‖ of each output, in the shape of a magnitude; no gradient flows into it. */
  magnitudeOf(adapter: Adapter): Tensor;
  /** Adds an adapter; the layer's own weight is frozen from then on. */
  addAdapter(name: string, adapter: Adapter, active?: boolean): void;
  /** Puts `tensor` in the place of a part of an adapter, whose old tensor is disposed. */
  replacePart(name: string, part: AdapterPart, tensor: Tensor): void;
  /** Adds the adapter "default" of a layer that is made by hand. */
  startWith(adapter: Adapter): void;
  /** Drops an adapter and its tensors. */
  removeAdapter(name: string): void;
  /** A plain layer of the same kind, settings and mode, whose weights are this one's. */
  plain(): Module;
  /**
   * What stands in its place once all adapters are off: what it replaced, a new plain layer, or itself where it was made
   * without an adapter.
   */
  unloaded(): Module;
  /** Lets merged weights be the layer's own; gives those that they replace. */
  settle(): Tensor[];
  /** Chooses which adapters count. */
  setActive(active: readonly Active[]): void;
  /** Runs `forward` of the base layer with the base's weight where adapters are off. */
  withBase<R>(forward: () => R): R;
  /** The name of a parameter of an adapter: loralib's, or PEFT's in memory. */
  parameterName(adapter: string, part: AdapterPart): string;
  nameInMemory(adapter: string, part: AdapterPart): string;
  /** What PEFT's file calls a part, after the layer's path. */
  nameOnDisk(part: AdapterPart): string;
  /** The shape of a part of rank `r` in PEFT's file. */
  shapeOnDisk(part: AdapterPart, r: number): readonly number[];
  /**
   * The adapter as PEFT's file holds it: itself, or for a form that PEFT does not have an equal one
   * of another rank, whose new tensors are the caller's.
   */
  plainAdapter(name: string): Adapter;
}

/** Which adapters count in forward, and how much. */
export interface Active {
  name: string;
  weight: number;
}
