/** One adapter of one layer: its tensors by part, its scaling, and the options it is made with. */
import { checkRoom } from "../../nn/room.js";
import { noGrad, scope } from "../../scope.js";
import type { Tensor } from "../../tensor.js";

/** h = W·x + scaling · B·A·x (Hu et al. 2021, section 4.1). */
export interface Adapter {
  /** Its rank. */
  readonly r: number;
  /** Its alpha, of which `scaling` is made. */
  readonly loraAlpha: number;
  /** loraAlpha / r, or loraAlpha / √r with rank-stabilised scaling (Kalajdzievski 2023). */
  readonly scaling: number;
  /** Whether `scaling` is rank-stabilised. */
  readonly useRslora?: boolean | undefined;
  /** Probability with which training drops what goes into A. */
  readonly loraDropout: number;
  /** The first factor, in a linear layer [r, in]. */
  loraA: Tensor;
  /** The second factor, in a linear layer [out, r]. */
  loraB: Tensor;
  /** Added to the low-rank product before it is scaled: [out]. */
  loraBias?: Tensor | undefined;
  /** DoRA's magnitudes, one an output, in PEFT's shape (Liu et al. 2024). */
  magnitude?: Tensor | undefined;
  /**
   * Where A and B started, when the start was taken out of the weight (PiSSA, OLoRA): what counts is
   * B·A − B₀·A₀. So the base keeps its bits, whatever adapters come and go.
   */
  start?:
    | {
        /** A₀, in the shape of `loraA`. */
        loraA: Tensor;
        /** B₀, in the shape of `loraB`. */
        loraB: Tensor;
      }
    | undefined;
}

/**
 * The equal plain adapter of one whose start was taken out of the weight: [A; A₀] and [B, −B₀], so of
 * twice the rank, and alpha with it (√2 times with rank-stabilised scaling). Another adapter is itself.
 */
export function withoutStart(adapter: Adapter): Adapter {
  const { start, ...plain } = adapter;
  if (start === undefined) return adapter;
  const { loraA, loraB, loraAlpha, r } = adapter;
  const factors = noGrad(() =>
    scope(() => ({ loraA: loraA.concat(start.loraA, 0), loraB: loraB.concat(start.loraB.neg(), 1) })),
  );
  return { ...plain, ...factors, r: 2 * r, loraAlpha: loraAlpha * (adapter.useRslora ? Math.SQRT2 : 2) };
}

/** All tensors of an adapter, those that are never trained among them. */
export function tensorsOf(adapter: Adapter): Tensor[] {
  const { start } = adapter;
  return [
    ...partsOf(adapter).map(([, tensor]) => tensor),
    ...(start === undefined ? [] : [start.loraA, start.loraB]),
  ];
}

/** What an adapter is made of. */
export type AdapterPart = "A" | "B" | "bias" | "magnitude";

const FIELDS = { A: "loraA", B: "loraB", bias: "loraBias", magnitude: "magnitude" } as const;

/** The tensors of an adapter, those that it has. */
export function partsOf(adapter: Adapter): [part: AdapterPart, tensor: Tensor][] {
  const all = Object.entries(FIELDS) as [AdapterPart, keyof Adapter][];
  return all.flatMap(([part, field]) => {
    const tensor = adapter[field] as Tensor | undefined;
    return tensor === undefined ? [] : [[part, tensor] as [AdapterPart, Tensor]];
  });
}

/** Puts `tensor` in the place of a part. */
export function setPart(adapter: Adapter, part: AdapterPart, tensor: Tensor): void {
  adapter[FIELDS[part]] = tensor;
}

/** What a fresh adapter is made with. */
export interface FreshOptions {
  r: number;
  loraAlpha: number;
  loraDropout?: number | undefined;
  useRslora?: boolean | undefined;
  /** Whether magnitude and direction are trained apart. */
  useDora?: boolean | undefined;
  /** Whether the low-rank product has a bias, which starts at zero. */
  loraBias?: boolean | undefined;
}

/** Loralib's options, common to all layers. */
export interface LoRAOptions {
  /** Rank; 0 makes a plain layer whose weight is trained. */
  r?: number | undefined;
  /** The low-rank product is multiplied by loraAlpha / r; 1. */
  loraAlpha?: number | undefined;
  /** Probability with which training drops what goes into A, from 0 to 1; 0. */
  loraDropout?: number | undefined;
  /** Whether `eval()` merges and `train()` unmerges; true. */
  mergeWeights?: boolean | undefined;
  /** Whether the product is multiplied by loraAlpha / √r instead (Kalajdzievski 2023); false. */
  useRslora?: boolean | undefined;
  /** Whether magnitude and direction are trained apart (DoRA, Liu et al. 2024); false. */
  useDora?: boolean | undefined;
  /** Whether the low-rank product has a bias, which starts at zero; false. */
  loraBias?: boolean | undefined;
}

/** alpha / r, or alpha / √r. */
export function scalingOf(r: number, loraAlpha: number, useRslora = false): number {
  return loraAlpha / (useRslora ? Math.sqrt(r) : r);
}

/** What describes a fresh adapter, its tensors apart. */
export function described(options: FreshOptions): Omit<Adapter, "loraA" | "loraB"> {
  const { r, loraAlpha, loraDropout = 0, useRslora = false } = options;
  return { r, loraAlpha, scaling: scalingOf(r, loraAlpha, useRslora), useRslora, loraDropout };
}

/** Refuses, before any value is drawn, adapters of more f32 elements than fit on the device: `ERR_OUT_OF_MEMORY`. */
export function checkAdapterRoom(what: string, device: Tensor["device"], elements: number): void {
  checkRoom(what, device, elements, "take a lower rank");
}
