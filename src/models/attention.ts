import { session } from "../native.js";
import { composedAttention, every, places } from "../nn/attention.js";
import { scope } from "../scope.js";
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
  /** The probability with which a weight is dropped; 0 by default. Above 0 the scores are stored. */
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
  if (dropout > 0) return dropping(q, keys, { ...options, scale, dropout, offset });
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
    ),
  );
  return y.reshape(B, T, H * D);
}

/** [B, T, H · D] as [B, T, H, D]. */
export function inHeads(x: Tensor, heads: number): Tensor {
  const [B, T, C] = x.shape as [number, number, number];
  return x.reshape(B, T, heads, C / heads);
}

/** `attention` whose weights are dropped, so that its scores are stored. */
function dropping(
  q: Tensor,
  { k, v, length: S }: { k: Tensor; v: Tensor; length: number },
  options: AttentionOptions & { scale: number; dropout: number; offset: number },
): Tensor {
  const { causal = false, window = 0, keyMask, segments, offset, scale, dropout } = options;
  const [B, T, H, D] = q.shape as [number, number, number, number];
  return scope(() => {
    const own = places(q.device, offset, T).reshape(T, 1);
    const others = places(q.device, 0, S);
    const parts: Tensor[] = [];
    if (causal) parts.push(others.le(own));
    if (window > 0) parts.push(others.gt(places(q.device, offset - window, T).reshape(T, 1)));
    if (keyMask !== undefined) parts.push(keyMask.slice(1, 0, S).ne(0).reshape(B, 1, 1, S));
    if (segments !== undefined) {
      const of = segments.slice(1, offset, offset + T).reshape(B, 1, T, 1);
      parts.push(segments.slice(1, 0, S).reshape(B, 1, 1, S).eq(of));
    }
    const heads = (x: Tensor, count: number): Tensor => x.slice(1, 0, count).transpose(1, 2);
    const y = composedAttention(heads(q, T), heads(k, S), heads(v, S), {
      visible: every(parts),
      scale,
      dropout,
    });
    return y.transpose(1, 2).reshape(B, T, H * D);
  });
}
