/** The cross-entropy of a language model's head, whose logits never exist whole. */
import { tensor, zeros } from "../create.js";
import { LowrankError } from "../errors.js";
import { Linear as LoRALinear } from "../lora/layers/linear.js";
import { session } from "../native.js";
import { Linear } from "../nn/linear.js";
import { checkpoint, isNoGrad } from "../scope.js";
import { isTensor, made, type Tensor } from "../tensor.js";
import { refuse } from "../argument.js";
import type { Places } from "./text-input.js";

/** How the losses of the labels become one; `none` leaves them apart. */
export type LossReduction = "mean" | "sum" | "none";

export interface HeadLossOptions {
  labelSmoothing: number;
  reduction: LossReduction;
  /** Logits are within ± this; see `softcapped`. */
  softcap?: number | undefined;
}

/** c · tanh(logits / c) (Gemma Team 2024); logits as they are without a cap. */
export function softcapped(logits: Tensor, cap: number | undefined): Tensor {
  return cap === undefined ? logits : logits.div(cap).tanh().mul(cap);
}

/** A label that counts for nothing. */
export const IGNORED = -100;
/** Bytes of logits, and of their gradients, that exist at a time, and the bounds of a chunk's rows. */
const LOGIT_BYTES = 2 ** 24;
const CHUNK = { least: 64, most: 1024 };

/** What each position is trained to say: i32 [B·T]. */
export interface Targets {
  readonly tensor: Tensor;
  /** The same, where the host knows them: rows without a label are left out then. */
  readonly known: Int32Array | undefined;
}

/**
 * Labels [B, T] moved one to the left, the last of each row ignored: position t is trained on label t + 1. Those that
 * are uploaded from the host are checked to be below `classes`.
 *
 * Throws `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`, `ERR_INDEX`, `ERR_OPTION`.
 */
export function shiftedTargets(ids: Places, labels: Tensor | Int32Array, classes: number): Targets {
  const { shape: given, host } = givenLabels(labels);
  const fits = labels instanceof Int32Array ? labels.length === ids.size : given.join() === ids.shape.join();
  if (!fits || ids.shape.length !== 2) {
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `forward: labels are [${given.join(", ")}], ids [${ids.shape.join(", ")}]; both are [B, T]`,
    );
  }
  const [B, T] = ids.shape as [number, number];
  if (!host) return { tensor: shiftedOnDevice(labels as Tensor, B, T), known: undefined };
  const known = shifted(host, B, T);
  checkLabels(known, T, classes, 1);
  const { device } = isTensor(labels) ? labels : ids;
  return { tensor: tensor(known, { shape: [B * T], device }), known };
}

/** Labels as they were given, and their values where the host has them. Throws `ERR_OPTION`, `ERR_DTYPE`. */
export function givenLabels(labels: Tensor | Int32Array): {
  shape: readonly number[];
  host: Int32Array | undefined;
} {
  if (labels instanceof Int32Array) return { shape: [labels.length], host: labels };
  if (!isTensor(labels)) refuse("forward", "labels", "an i32 tensor or an Int32Array", labels);
  if (labels.dtype !== "i32")
    throw new LowrankError("ERR_DTYPE", `forward: labels are i32, not ${labels.dtype}`);
  return { shape: labels.shape, host: (session().hostValues(labels.id) as Int32Array | null) ?? undefined };
}

/** Throws `ERR_INDEX` for a label that is none of `classes`; `before` columns of a row are not among `known`. */
export function checkLabels(known: Int32Array, T: number, classes: number, before = 0): void {
  const wrong = known.findIndex((label) => label !== IGNORED && (label < 0 || label >= classes));
  if (wrong < 0) return;
  const place = `[${Math.floor(wrong / T)}, ${(wrong % T) + before}]`;
  throw new LowrankError(
    "ERR_INDEX",
    `forward: label ${known[wrong]} at ${place} is no token: there are ${classes} (0 to ${classes - 1}), and ` +
      `${IGNORED} is ignored`,
  );
}

/** Labels moved one to the left, the last of each row ignored. */
function shifted(labels: Int32Array, B: number, T: number): Int32Array {
  const out = new Int32Array(B * T).fill(IGNORED);
  for (let b = 0; b < B; b++) out.set(labels.subarray(b * T + 1, (b + 1) * T), b * T);
  return out;
}

function shiftedOnDevice(labels: Tensor, B: number, T: number): Tensor {
  const ignored = tensor(new Int32Array(B).fill(IGNORED), { shape: [B, 1], device: labels.device });
  return labels
    .slice(1, 1)
    .concat(ignored, 1)
    .reshape(B * T);
}

/** 1 for each target that counts, 0 elsewhere: f32 [B·T]. */
export function countedTargets({ tensor: targets, known }: Targets): Tensor {
  if (known === undefined) return targets.eq(IGNORED).to("f32").neg().add(1);
  return tensor(
    Float32Array.from(known, (label) => (label === IGNORED ? 0 : 1)),
    { device: targets.device },
  );
}

/** The part of `targets` from `start` up to `end`. */
export function targetsWithin({ tensor: targets, known }: Targets, start: number, end: number): Targets {
  return { tensor: targets.slice(0, start, end), known: known?.subarray(start, end) };
}

/** The dense product that `head` is over `rows` rows, where it is no more than that. */
export function denseHead(head: Linear, rows: number): { weight: Tensor; bias: Tensor | null } | undefined {
  if (head.fanInFanOut) return undefined;
  if (head instanceof LoRALinear) {
    const parts = head.plainParts(rows);
    return parts?.share === undefined ? parts : undefined;
  }
  return head.forward === Linear.prototype.forward ? head : undefined;
}

/**
 * The cross-entropy of `head` over hidden [.., C] against targets [N], a scalar, or [N] without a reduction. A dense
 * head and its loss are one operation that goes through the rows by chunks, in forward alone; any other (low-rank
 * paths, capped logits, one that is trained without a reduction) runs chunk after chunk, each again in backward.
 */
export function headLoss(head: Linear, hidden: Tensor, targets: Targets, wanted: HeadLossOptions): Tensor {
  const { labelSmoothing, reduction, softcap } = wanted;
  const rows = hidden.reshape(-1, hidden.shape.at(-1) as number);
  const dense = denseHead(head, targets.tensor.size);
  const trained = !isNoGrad() && (dense?.weight.requiresGrad || dense?.bias?.requiresGrad);
  if (dense === undefined || softcap !== undefined || (reduction === "none" && trained))
    return byChunks(head, rows, targets, wanted);
  const { weight, bias } = dense;
  return made(() =>
    session().linearCrossEntropy(
      rows.id,
      weight.id,
      targets.tensor.id,
      bias?.id,
      IGNORED,
      labelSmoothing,
      reduction,
    ),
  );
}

function byChunks(
  head: Linear,
  rows: Tensor,
  targets: Targets,
  { labelSmoothing, reduction, softcap }: HeadLossOptions,
): Tensor {
  const labelled = labelledRows(targets);
  const x = labelled === undefined ? rows : pickRows(rows, labelled.indices);
  const labels = labelled?.labels ?? targets.tensor;
  const N = labels.size;
  const most = Math.min(Math.max(LOGIT_BYTES / 4 / head.outFeatures, CHUNK.least), CHUNK.most);
  // Chunks of a size, so that none is left with a few rows.
  const chunk = Math.max(1, Math.ceil(N / Math.ceil(N / most)));
  const options = {
    ignoreIndex: IGNORED,
    labelSmoothing,
    reduction: reduction === "none" ? "none" : "sum",
  } as const;
  const [first, ...rest] = Array.from({ length: Math.max(1, Math.ceil(N / chunk)) }, (_, i) =>
    checkpoint(() => {
      const [start, end] = [i * chunk, Math.min((i + 1) * chunk, N)];
      const logits = softcapped(head.forward(x.slice(0, start, end)), softcap);
      return logits.crossEntropy(labels.slice(0, start, end), options);
    }),
  ) as [Tensor, ...Tensor[]];
  if (reduction === "none") {
    const losses = rest.length === 0 ? first : first.concat(rest, 0);
    if (labelled === undefined) return losses;
    // The row after the last is what rows without a label get.
    const table = losses.reshape(N, 1).concat(zeros([1, 1], { device: losses.device }), 0);
    return pickRows(table, labelled.places).reshape(-1);
  }
  const sum = rest.reduce((total, one) => total.add(one), first);
  return reduction === "sum" ? sum : sum.div(countedTargets(targets).sum());
}

/** Rows that have a label, their labels, and where each row is among them; undefined where all are gone through. */
function labelledRows({
  tensor: targets,
  known,
}: Targets): { indices: Tensor; labels: Tensor; places: Tensor } | undefined {
  if (known === undefined) return undefined;
  const indices = [...known.keys()].filter((row) => known[row] !== IGNORED);
  if (indices.length === 0 || indices.length === known.length) return undefined;
  const places = new Int32Array(known.length).fill(indices.length);
  for (const [place, row] of indices.entries()) places[row] = place;
  const { device } = targets;
  return {
    indices: tensor(Int32Array.from(indices), { device }),
    labels: tensor(
      Int32Array.from(indices, (row) => known[row] as number),
      { device },
    ),
    places: tensor(places, { device }),
  };
}

/** Rows of x [N, C] by their indices. */
function pickRows(x: Tensor, indices: Tensor): Tensor {
  return made(() => session().embedding(x.id, indices.id, false, undefined));
}
