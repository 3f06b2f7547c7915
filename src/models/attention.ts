import { session } from "../native/binding.js";
import { drawDropout } from "../nn/attention.js";
import { recordOp, type Tensor } from "../tensor/tensor.js";
import type { LayerCache } from "./cache.js";

/** Masks and segments that restrict attention within a batch. */
export interface AttentionLabels {
  /** i32 [B, S], 0 where a key is hidden. */
  keyMask?: Tensor | undefined;
  /** i32 [B, S]: only positions of equal segments attend to each other. */
  segments?: Tensor | undefined;
}

export interface AttentionOptions extends AttentionLabels {
  /** Whether a query attends only to keys up to its own position. */
  causal?: boolean | undefined;
  /** The sliding window: the number of keys that a query attends to, up to and including its own; 0 for no limit. */
  window?: number | undefined;
  /** The factor of q·k; 1/√D by default. */
  scale?: number | undefined;
  /** The probability of dropping an attention weight; 0 by default. */
  dropout?: number | undefined;
  /** The layer's KV cache, to which k and v are appended. */
  cache?: LayerCache | undefined;
}

/** Computes softmax(scale · q kᵀ) v. Shapes: q [B, T, H, D]; k, v [B, S, Hkv, D]; returns [B, T, H · D]. */
export function attend(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  const [B, T, H, D] = q.shape as [number, number, number, number];
  const { causal = false, keyMask, segments, window = 0, scale = 1 / Math.sqrt(D), cache } = options;
  const { dropout = 0 } = options;
  const offset = cache?.length ?? 0;
  const keys = cache === undefined ? { k, v, length: k.shape[1] as number } : cache.append(k, v);
  const y = recordOp(() =>
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
      drawDropout(dropout),
    ),
  );
  // With a dropout of 1 the output is zero and no gradient flows.
  return (dropout === 1 ? y.mul(0) : y).reshape(B, T, H * D);
}

/** Reshapes [B, T, H · D] to [B, T, H, D]. */
export function splitHeads(x: Tensor, heads: number): Tensor {
  const [B, T, C] = x.shape as [number, number, number];
  return x.reshape(B, T, heads, C / heads);
}
