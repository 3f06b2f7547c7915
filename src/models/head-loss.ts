/** The cross-entropy of a language model's head, computed in chunks so that the logits are never materialised. */
import { tensor, zeros } from "../tensor/create.js";
import { LowrankError } from "../errors.js";
import { Linear as LoRALinear } from "../lora/layers/linear.js";
import { session } from "../native/binding.js";
import { Linear } from "../nn/linear.js";
import { checkpoint, isNoGrad } from "../tensor/scope.js";
import { isTensor, recordOp, type Tensor } from "../tensor/tensor.js";
import { refuse } from "../arguments/check.js";
import type { TokenShape } from "./text-input.js";

/** How the losses of the labels are reduced; `none` returns them separately. */
export type LossReduction = "mean" | "sum" | "none";

export interface HeadLossOptions {
  labelSmoothing: number;
  reduction: LossReduction;
  /** The cap of the logits; see `applySoftcap`. */
  softcap?: number | undefined;
}

/** Returns c · tanh(logits / c) (Gemma Team 2024), or the logits unchanged without a cap. */
export function applySoftcap(logits: Tensor, cap: number | undefined): Tensor {
  return cap === undefined ? logits : logits.div(cap).tanh().mul(cap);
}

/** The label of positions that are excluded from the loss. */
export const IGNORED = -100;
/** The maximum bytes of a chunk's logits and of their gradients, and the bounds of its rows. */
const LOGIT_BYTES = 2 ** 24;
const CHUNK = { least: 64, most: 1024 };

/** The target token of each position: i32 [B·T]. */
export interface Targets {
  readonly tensor: Tensor;
  /** The same values where the host has them; rows without a label are then skipped. */
  readonly known: Int32Array | undefined;
}

/**
 * Shifts labels [B, T] one to the left, so that position t predicts label t + 1; the last position of each row is
 * ignored. Labels that the host knows are checked to be below `classes`.
 *
 * Throws `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`, `ERR_INDEX`, `ERR_OPTION`.
 */
export function shiftTargets(ids: TokenShape, labels: Tensor | Int32Array, classes: number): Targets {
  const { shape: given, host } = checkGivenLabels(labels);
  const fits = labels instanceof Int32Array ? labels.length === ids.size : given.join() === ids.shape.join();
  if (!fits || ids.shape.length !== 2) {
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `forward: labels are [${given.join(", ")}], ids [${ids.shape.join(", ")}]; both are [B, T]`,
    );
  }
  const [B, T] = ids.shape as [number, number];
  if (!host) return { tensor: shiftOnDevice(labels as Tensor, B, T), known: undefined };
  const known = shiftLabels(host, B, T);
  checkLabels(known, T, classes, 1);
  const { device } = isTensor(labels) ? labels : ids;
  return { tensor: tensor(known, { shape: [B * T], device }), known };
}

/** Checks labels; returns their shape, and their values where the host has them. Throws `ERR_OPTION`, `ERR_DTYPE`. */
export function checkGivenLabels(labels: Tensor | Int32Array): {
  shape: readonly number[];
  host: Int32Array | undefined;
} {
  if (labels instanceof Int32Array) return { shape: [labels.length], host: labels };
  if (!isTensor(labels)) refuse("forward", "labels", "an i32 tensor or an Int32Array", labels);
  if (labels.dtype !== "i32")
    throw new LowrankError("ERR_DTYPE", `forward: labels are i32, not ${labels.dtype}`);
  return { shape: labels.shape, host: (session().hostValues(labels.id) as Int32Array | null) ?? undefined };
}

/** Throws `ERR_INDEX` for a label outside the `classes`; each row of `known` lacks its first `before` columns. */
export function checkLabels(known: Int32Array, T: number, classes: number, before = 0): void {
  const wrong = known.findIndex((label) => label !== IGNORED && (label < 0 || label >= classes));
  if (wrong < 0) return;
  const place = `[${Math.floor(wrong / T)}, ${(wrong % T) + before}]`;
  throw new LowrankError(
    "ERR_INDEX",
    `forward: label ${known[wrong]} at ${place} is not a token; labels are 0 to ${classes - 1}, or ${IGNORED} to ` +
      "ignore a position",
  );
}

/** Shifts labels one to the left and fills the last column with `IGNORED`. */
function shiftLabels(labels: Int32Array, B: number, T: number): Int32Array {
  const out = new Int32Array(B * T).fill(IGNORED);
  for (let b = 0; b < B; b++) out.set(labels.subarray(b * T + 1, (b + 1) * T), b * T);
  return out;
}

function shiftOnDevice(labels: Tensor, B: number, T: number): Tensor {
  const ignored = tensor(new Int32Array(B).fill(IGNORED), { shape: [B, 1], device: labels.device });
  return labels
    .slice(1, 1)
    .concat(ignored, 1)
    .reshape(B * T);
}

/** Returns 1 for each target that counts and 0 for ignored ones: f32 [B·T]. */
export function countTargets({ tensor: targets, known }: Targets): Tensor {
  if (known === undefined) return targets.eq(IGNORED).to("f32").neg().add(1);
  return tensor(
    Float32Array.from(known, (label) => (label === IGNORED ? 0 : 1)),
    { device: targets.device },
  );
}

/** Returns targets `start` to `end`, exclusive. */
export function sliceTargets({ tensor: targets, known }: Targets, start: number, end: number): Targets {
  return { tensor: targets.slice(0, start, end), known: known?.subarray(start, end) };
}

/** Returns the weight and bias of `head` where it is a plain dense layer for `rows` rows; else undefined. */
export function readDenseHead(
  head: Linear,
  rows: number,
): { weight: Tensor; bias: Tensor | null } | undefined {
  if (head.fanInFanOut) return undefined;
  if (head instanceof LoRALinear) {
    const parts = head.findPlainParts(rows);
    return parts?.share === undefined ? parts : undefined;
  }
  return head.forward === Linear.prototype.forward ? head : undefined;
}

/**
 * Returns the cross-entropy of `head` over hidden [.., C] against targets [N]: a scalar, or [N] without a reduction.
 * For a dense head this is one fused operation that processes rows in chunks in forward alone. Any other case (low-rank
 * paths, capped logits, a trained head without a reduction) runs chunk by chunk, and recomputes each chunk in backward.
 */
export function computeHeadLoss(
  head: Linear,
  hidden: Tensor,
  targets: Targets,
  wanted: HeadLossOptions,
): Tensor {
  const { labelSmoothing, reduction, softcap } = wanted;
  const rows = hidden.reshape(-1, hidden.shape.at(-1) as number);
  const dense = readDenseHead(head, targets.tensor.size);
  const trained = !isNoGrad() && (dense?.weight.requiresGrad || dense?.bias?.requiresGrad);
  if (dense === undefined || softcap !== undefined || (reduction === "none" && trained))
    return computeByChunks(head, rows, targets, wanted);
  const { weight, bias } = dense;
  return recordOp(() =>
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

function computeByChunks(
  head: Linear,
  rows: Tensor,
  targets: Targets,
  { labelSmoothing, reduction, softcap }: HeadLossOptions,
): Tensor {
  const labelled = selectLabelledRows(targets);
  const x = labelled === undefined ? rows : pickRows(rows, labelled.indices);
  const labels = labelled?.labels ?? targets.tensor;
  const N = labels.size;
  const most = Math.min(Math.max(LOGIT_BYTES / 4 / head.outFeatures, CHUNK.least), CHUNK.most);
  // Chunks of equal size, so that the last one is not much smaller.
  const chunk = Math.max(1, Math.ceil(N / Math.ceil(N / most)));
  const options = {
    ignoreIndex: IGNORED,
    labelSmoothing,
    reduction: reduction === "none" ? "none" : "sum",
  } as const;
  const [first, ...rest] = Array.from({ length: Math.max(1, Math.ceil(N / chunk)) }, (_, i) =>
    checkpoint(() => {
      const [start, end] = [i * chunk, Math.min((i + 1) * chunk, N)];
      const logits = applySoftcap(head.forward(x.slice(0, start, end)), softcap);
      return logits.crossEntropy(labels.slice(0, start, end), options);
    }),
  ) as [Tensor, ...Tensor[]];
  if (reduction === "none") {
    const losses = rest.length === 0 ? first : first.concat(rest, 0);
    if (labelled === undefined) return losses;
    // Rows without a label pick the extra zero row at the end.
    const table = losses.reshape(N, 1).concat(zeros([1, 1], { device: losses.device }), 0);
    return pickRows(table, labelled.places).reshape(-1);
  }
  const sum = rest.reduce((total, part) => total.add(part), first);
  return reduction === "sum" ? sum : sum.div(countTargets(targets).sum());
}

/**
 * Returns the rows that have a label, their labels, and each row's index among them; undefined where no rows can be
 * skipped.
 */
function selectLabelledRows({
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

/** Gathers rows of x [N, C] by index. */
function pickRows(x: Tensor, indices: Tensor): Tensor {
  return recordOp(() => session().embedding(x.id, indices.id, false, undefined));
}
