import { session } from "../native.js";
import { dropoutOf } from "../nn/attention.js";
import { made, type Tensor } from "../tensor.js";
import type { LayerCache } from "./cache.js";

/** What parts the positions of a batch. */
export interface AttentionLabels {
  /** i32 [B, S], 0 where a key is hidden. */
  keyMask?: Tensor | undefined;
  /** i32 [B, S]: only positions of equal segments see each other. */
  segments?: Tensor | undefined;
}

export interface AttentionOptions extends AttentionLabels {
  /** A query sees no key after its own position. */
  causal?: boolean | undefined;
  /** How many positions back a query sees, its own counted; 0 sees all. */
  window?: number | undefined;
  /** 1/√D unless given. */
  scale?: number | undefined;
  /** The probability with which a weight is dropped; 0 by default. */
  dropout?: number | undefined;
  /** Keys and values so far, to which k and v are appended. */
  cache?: LayerCache | undefined;
}

/** softmax(scale · q kᵀ) v. Shapes: q [B, T, H, D]; k, v [B, S, Hkv, D]; gives [B, T, H · D]. */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  const [B, T, H, D] = q.shape as [number, number, number, number];
  const { causal = false, keyMask, segments, window = 0, scale = 1 / Math.sqrt(D), cache } = options;
  const { dropout = 0 } = options;
  const offset = cache?.length ?? 0;
  const keys = cache === undefined ? { k, v, length: k.shape[1] as number } : cache.append(k, v);
  const y = made(() =>
    session().attention(
      q.id,
      keys.k.id,
      keys.v.id,
      keyMask?.id,
      causal,
      window,
      scale,
      offset,
      keys.length,
      segments?.id,
      false,
      dropoutOf(dropout),
    ),
  );
  // Zeros, and no gradient.
  return (dropout === 1 ? y.mul(0) : y).reshape(B, T, H * D);
}

/** [B, T, H · D] as [B, T, H, D]. */
export function inHeads(x: Tensor, heads: number): Tensor {
  const [B, T, C] = x.shape as [number, number, number];
  return x.reshape(B, T, heads, C / heads);
}
