/** Attention as a function: the fused kernel for masks of keys, otherwise products and a softmax. */
import * as argument from "../arguments/check.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import { drawStream } from "../tensor/random.js";
import { scope } from "../tensor/scope.js";
import { recordOp, type Tensor } from "../tensor/tensor.js";
import { formatShape } from "../tensor/arguments.js";
import { checkInput } from "./inputs.js";

/** Options of `scaledDotProductAttention`. */
export interface ScaledDotProductAttentionOptions {
  /**
   * Floats that are added to the scores, or i32 with 0 for each key that is hidden; of any shape that is broadcast to
   * [B, H, T, S].
   */
  mask?: Tensor | undefined;
  /** Whether query t sees no key after t, in addition to the keys that the mask hides; false by default. */
  causal?: boolean | undefined;
  /** The probability with which each weight is dropped, always; 0 by default. Pass 0 outside of training. */
  dropout?: number | undefined;
  /** What scores are multiplied by; 1/√D by default. */
  scale?: number | undefined;
}

/** Heads of the fused kernel have this many features at most. */
const FUSED_FEATURES = 256;

/** Replaces −∞ in scores, so that the softmax of a fully masked row is defined. */
const HIDDEN = -3e38;

/**
 * Computes softmax(scale · q kᵀ + mask) v for each head. A query without visible keys returns zeros.
 *
 * Without a mask, or with a mask of keys only (i32, [B, 1, 1, S] or a shape that broadcasts to it), scores are never
 * stored. Other masks, heads of more than 256 features, a Dv other than D, and dropout with both `causal` and grouped
 * heads take memory for B·H·T·S scores. Floats compute in f32.
 *
 * Shapes: q [B, H, T, D], k [B, Hkv, S, D], v [B, Hkv, S, Dv], y [B, H, T, Dv]. H is a multiple of Hkv; adjacent heads
 * of q share a head of k and v. B, or B and H, may be omitted in all. As
 * `torch.nn.functional.scaled_dot_product_attention`, with `enable_gqa` for fewer heads of k and v, and with a mask and
 * `causal` together. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`, `ERR_DEVICE_MISMATCH`.
 */
export function scaledDotProductAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  given?: ScaledDotProductAttentionOptions,
): Tensor {
  const where = "scaledDotProductAttention";
  const {
    mask,
    causal = false,
    dropout = 0,
    scale,
  } = argument.checkKnownOptions(where, given, ["mask", "causal", "dropout", "scale"]);
  argument.checkFlag(where, "causal", causal);
  argument.checkProbability(where, "dropout", dropout);
  if (scale !== undefined)
    argument.checkNumberThat(where, "scale", scale, Number.isFinite, "a finite number");
  if (mask !== undefined) checkInput(where, mask, "mask");
  const { length: rank } = checkShapes(where, q, k, v);
  if (rank < 4) {
    const toF32 = (x: Tensor): Tensor => x.reshape([...Array<number>(4 - rank).fill(1), ...x.shape]);
    return scope(() => {
      const y = scaledDotProductAttention(toF32(q), toF32(k), toF32(v), given);
      return y.reshape(y.shape.slice(4 - rank));
    });
  }
  const shape = [...q.shape.slice(0, 3), k.shape[2]] as [number, number, number, number];
  if (mask !== undefined) checkMask(where, mask, shape);
  const factor = scale ?? 1 / Math.sqrt(q.shape[3] as number);
  return scope(() => {
    const parts = [q, k, v].map((x) => x.to("f32")) as [Tensor, Tensor, Tensor];
    const keys = mask === undefined ? undefined : reduceToKeyMask(mask, shape);
    const features = q.shape[3] as number;
    const fits = features > 0 && features <= FUSED_FEATURES && v.shape[3] === features && shape[3] > 0;
    const turns = causal && q.shape[1] !== k.shape[1];
    const drops = dropout > 0 && (dropout === 1 || turns);
    if (!drops && fits && (mask === undefined || keys !== undefined))
      return attendFused(...parts, { keys, causal, scale: factor, dropout });
    const seen = createVisibility(shape, parts[0], { mask, causal });
    return attendComposed(...parts, { ...seen, scale: factor, dropout });
  });
}

/** Checks that the shapes fit; returns q's. Throws `ERR_SHAPE_MISMATCH`, `ERR_OPTION`. */
function checkShapes(where: string, q: Tensor, k: Tensor, v: Tensor): readonly number[] {
  for (const [name, x] of Object.entries({ q, k, v })) checkInput(where, x, name);
  const rank = q.shape.length;
  const [queries, keys, values] = [q, k, v].map(({ shape }) => shape) as [number[], number[], number[]];
  const heads = [queries, keys].map((shape) => (rank > 2 ? (shape.at(-3) ?? 0) : 1)) as [number, number];
  const fits =
    rank >= 2 &&
    rank <= 4 &&
    keys.length === rank &&
    values.length === rank &&
    queries.at(-1) === keys.at(-1) &&
    keys.slice(0, -1).join() === values.slice(0, -1).join() &&
    queries.slice(0, -3).join() === keys.slice(0, -3).join() &&
    (heads[0] === heads[1] || (heads[1] > 0 && heads[0] % heads[1] === 0));
  if (fits) return queries;
  throw new LowrankError(
    "ERR_SHAPE_MISMATCH",
    `${where}: q ${formatShape(queries)}, k ${formatShape(keys)} and v ${formatShape(values)} are not [B, H, T, D], [B, Hkv, S, D] and ` +
      `[B, Hkv, S, Dv] with H a multiple of Hkv`,
  );
}

function checkMask(where: string, mask: Tensor, shape: readonly number[]): void {
  const from = shape.length - mask.shape.length;
  if (from >= 0 && mask.shape.every((n, d) => n === 1 || n === shape[from + d])) return;
  throw new LowrankError(
    "ERR_SHAPE_MISMATCH",
    `${where}: mask ${formatShape(mask.shape)} is not broadcast to the scores ${formatShape(shape)}`,
  );
}

/** Returns a mask that is the same for every head and query as [B, S]; undefined for another mask. */
function reduceToKeyMask(
  mask: Tensor,
  [B, , , S]: readonly [number, number, number, number],
): Tensor | undefined {
  const [batch, heads, queries] = [
    ...Array<number>(4 - mask.shape.length).fill(1),
    ...mask.shape,
  ] as number[];
  if (mask.dtype !== "i32" || heads !== 1 || queries !== 1) return undefined;
  return mask.reshape(batch as number, mask.shape.at(-1) ?? 1).expand(B, S);
}

/**
 * Calls the fused kernel without copying. Heads that do not share keys are passed as examples of a batch. Heads that
 * share keys are passed as additional queries, unless positions of queries matter: then the kernel reads [B, H, T, D]
 * by strides.
 */
function attendFused(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  {
    keys,
    causal,
    scale,
    dropout,
  }: { keys: Tensor | undefined; causal: boolean; scale: number; dropout: number },
): Tensor {
  const [B, H, T, D] = q.shape as [number, number, number, number];
  const [, Hkv, S] = k.shape as [number, number, number];
  const group = H / Hkv;
  if (causal && group > 1)
    return recordOp(() =>
      session().attention(q.id, k.id, v.id, keys?.id, true, 0, scale, 0, S, undefined, true),
    );
  const queries = q.reshape(B * Hkv, group * T, 1, D);
  const [storedKeys, values] = [k.reshape(B * Hkv, S, 1, D), v.reshape(B * Hkv, S, 1, D)];
  const hidden = keys
    ?.reshape(B, 1, S)
    .expand(B, Hkv, S)
    .reshape(B * Hkv, S);
  const y = recordOp(() =>
    session().attention(
      ...([queries.id, storedKeys.id, values.id, hidden?.id, causal, 0, scale, 0, S] as const),
      undefined,
      false,
      drawDropout(dropout),
    ),
  );
  return y.reshape(B, H, T, D);
}

/** Returns the dropout parameters of a call, drawn from the generator; undefined for p = 0 and p = 1. */
export function drawDropout(p: number): { p: number; seed: number; stream: number } | undefined {
  if (p === 0 || p === 1) return undefined;
  const [seed, stream] = drawStream();
  return { p, seed, stream };
}

/** Changes of the scores before the softmax. */
export interface Visibility {
  /** 0 where a key is hidden; broadcast to [B, H, T, S]. */
  visible?: Tensor | undefined;
  /** Added to the scores; broadcast to [B, H, T, S]. */
  bias?: Tensor | undefined;
}

function createVisibility(
  [, , T, S]: readonly [number, number, number, number],
  { device }: Tensor,
  { mask, causal }: { mask: Tensor | undefined; causal: boolean },
): Visibility {
  const parts: Tensor[] = [];
  let bias: Tensor | undefined;
  if (mask?.dtype === "i32") parts.push(mask.ne(0));
  else if (mask !== undefined) {
    // −∞ hides a key. Such entries are excluded from the sum, whose gradient would be NaN.
    const wide = mask.to("f32");
    const finite = wide.ne(-Infinity);
    parts.push(finite);
    bias = wide.where(finite, 0);
  }
  if (causal)
    parts.push(
      createPositions(device, 0, S)
        .reshape(1, S)
        .le(createPositions(device, 0, T).reshape(T, 1)),
    );
  return { visible: intersectMasks(parts), bias };
}

/** Returns consecutive whole numbers starting at `from`, i32 [count]. */
export function createPositions(device: Tensor["device"], from: number, count: number): Tensor {
  const values = Int32Array.from({ length: count }, (_, i) => from + i);
  return recordOp(() => session().tensor(device, [count], "i32", new Uint8Array(values.buffer), false));
}

/** Returns 1 where all `parts` (i32, 0 or 1) are 1, with broadcasting; undefined for no parts. */
export function intersectMasks(parts: readonly Tensor[]): Tensor | undefined {
  const [first, ...others] = parts;
  if (others.length === 0) return first;
  return others.reduce((all, part) => all.mul(part.to("f32")), (first as Tensor).to("f32"));
}

/**
 * Computes attention with stored scores. Shapes: q [B, H, T, D], k [B, Hkv, S, D], v [B, Hkv, S, Dv], all f32; y
 * [B, H, T, Dv].
 */
export function attendComposed(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { visible, bias, scale, dropout }: Visibility & { scale: number; dropout: number },
): Tensor {
  const [B, H, T, D] = q.shape as [number, number, number, number];
  const [, Hkv, S] = k.shape as [number, number, number];
  return scope(() => {
    // Heads that share keys become rows of one product.
    const rows = q.mul(scale).reshape(B, Hkv, (H / Hkv) * T, D);
    let scores = rows.matmul(k, { transB: true }).reshape(B, H, T, S);
    if (bias !== undefined) scores = scores.add(bias);
    if (visible !== undefined) scores = scores.where(visible, HIDDEN);
    let weights = scores.softmax();
    // A fully masked row becomes zero.
    if (visible !== undefined) weights = weights.where(visible, 0);
    if (dropout > 0) weights = weights.dropout(dropout);
    return weights
      .reshape(B, Hkv, (H / Hkv) * T, S)
      .matmul(v)
      .reshape(B, H, T, v.shape[3] as number);
  });
}
