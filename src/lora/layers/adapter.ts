/** One adapter of one layer: its tensors, its scaling, and its options. */
import type { Device } from "../../device/device.js";
import { adoptReplacement } from "../../nn/module.js";
import { checkRoom } from "../../nn/room.js";
import { noGrad, scope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";

/** h = W·x + scaling · B·A·x (Hu et al. 2021, section 4.1). */
export interface Adapter {
  /** The rank. */
  readonly r: number;
  /** Alpha, from which `scaling` is computed. */
  readonly loraAlpha: number;
  /** loraAlpha / r, or loraAlpha / √r with rank-stabilised scaling (Kalajdzievski 2023). */
  readonly scaling: number;
  /** Whether `scaling` is rank-stabilised. */
  readonly useRslora?: boolean | undefined;
  /** Dropout probability of the input of A, in training. */
  readonly loraDropout: number;
  /** The first factor, in a linear layer [r, in]. */
  loraA: Tensor;
  /** The second factor, in a linear layer [out, r]. */
  loraB: Tensor;
  /** Added to the low-rank product before it is scaled: [out]. */
  loraBias?: Tensor | undefined;
  /** DoRA's magnitudes, one per output, in PEFT's shape (Liu et al. 2024). */
  magnitude?: Tensor | undefined;
  /**
   * The initial A and B, if they were subtracted from the weight (PiSSA, OLoRA). The layer then adds B·A − B₀·A₀, so the
   * base weight itself never changes.
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
 * Returns the equivalent plain adapter of an adapter with `start`: [A; A₀] and [B, −B₀], with twice the rank and twice
 * alpha (√2 times with rank-stabilised scaling). Returns an adapter without `start` unchanged.
 */
export function mergeStart(adapter: Adapter): Adapter {
  const { start, ...plain } = adapter;
  if (start === undefined) return adapter;
  const { loraA, loraB, loraAlpha, r } = adapter;
  const factors = noGrad(() =>
    scope(() => ({ loraA: loraA.concat(start.loraA, 0), loraB: loraB.concat(start.loraB.neg(), 1) })),
  );
  return { ...plain, ...factors, r: 2 * r, loraAlpha: loraAlpha * (adapter.useRslora ? Math.SQRT2 : 2) };
}

/** Returns all tensors of an adapter, including those that are never trained. */
export function listTensors(adapter: Adapter): Tensor[] {
  const { start } = adapter;
  return [
    ...listParts(adapter).map(([, tensor]) => tensor),
    ...(start === undefined ? [] : [start.loraA, start.loraB]),
  ];
}

/** The trained tensors of an adapter. */
export type AdapterPart = "A" | "B" | "bias" | "magnitude";

const FIELDS = { A: "loraA", B: "loraB", bias: "loraBias", magnitude: "magnitude" } as const;

/** Returns the trained tensors that an adapter has, by part. */
export function listParts(adapter: Adapter): [part: AdapterPart, tensor: Tensor][] {
  const all = Object.entries(FIELDS) as [AdapterPart, keyof Adapter][];
  return all.flatMap(([part, field]) => {
    const tensor = adapter[field] as Tensor | undefined;
    return tensor === undefined ? [] : [[part, tensor] as [AdapterPart, Tensor]];
  });
}

/** Replaces one tensor of an adapter. */
export function setPart(adapter: Adapter, part: AdapterPart, tensor: Tensor): void {
  adapter[FIELDS[part]] = tensor;
}

/** Moves an adapter's tensors to `device`. */
export function moveAdapter(adapter: Adapter, device: Device): void {
  const { start } = adapter;
  for (const [part, tensor] of listParts(adapter)) setPart(adapter, part, moveTensor(tensor, device));
  if (start === undefined) return;
  start.loraA = moveTensor(start.loraA, device);
  start.loraB = moveTensor(start.loraB, device);
}

function moveTensor(tensor: Tensor, device: Device): Tensor {
  const moved = tensor.to(device);
  return moved === tensor ? tensor : adoptReplacement(tensor, moved);
}

/** Options of a new adapter. */
export interface FreshOptions {
  r: number;
  loraAlpha: number;
  loraDropout?: number | undefined;
  useRslora?: boolean | undefined;
  /** Whether magnitude and direction are trained separately (DoRA). */
  useDora?: boolean | undefined;
  /** Whether the low-rank product has a bias, which starts at zero. */
  loraBias?: boolean | undefined;
}

/** The options that loralib gives all its layers. */
export interface LoRAOptions {
  /** The rank; 0 makes a plain layer with a trainable weight. */
  r?: number | undefined;
  /** Alpha: the low-rank product is multiplied by loraAlpha / r. Default: 1. */
  loraAlpha?: number | undefined;
  /** Dropout probability of the input of A in training, from 0 to 1. Default: 0. */
  loraDropout?: number | undefined;
  /** Whether `eval()` merges and `train()` unmerges. Default: true. */
  mergeWeights?: boolean | undefined;
  /** Whether the product is multiplied by loraAlpha / √r instead (Kalajdzievski 2023). Default: false. */
  useRslora?: boolean | undefined;
  /** Whether magnitude and direction are trained separately (DoRA, Liu et al. 2024). Default: false. */
  useDora?: boolean | undefined;
  /** Whether the low-rank product has a bias, initially zero. Default: false. */
  loraBias?: boolean | undefined;
}

/** Returns alpha / r, or alpha / √r with rank-stabilised scaling. */
export function computeScaling(r: number, loraAlpha: number, useRslora = false): number {
  return loraAlpha / (useRslora ? Math.sqrt(r) : r);
}

/** Returns all fields of a new adapter except its tensors. */
export function describeAdapter(options: FreshOptions): Omit<Adapter, "loraA" | "loraB"> {
  const { r, loraAlpha, loraDropout = 0, useRslora = false } = options;
  return { r, loraAlpha, scaling: computeScaling(r, loraAlpha, useRslora), useRslora, loraDropout };
}

/** Throws `ERR_OUT_OF_MEMORY` if `elements` f32 values do not fit on the device. Called before any value is drawn. */
export function checkAdapterRoom(what: string, device: Tensor["device"], elements: number): void {
  checkRoom(what, device, elements, "take a lower rank");
}
