/**
 * Grouped-query attention of the Llama family (Touvron et al. 2023), with the head norms of Qwen3 (Yang et al. 2025).
 */
import type { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import type { RMSNorm } from "../../nn/norm.js";
import { isTraining } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { attend, type AttentionLabels, splitHeads } from "../attention.js";
import type { LayerCache } from "../cache.js";
import type { Weights } from "../weights.js";
import type { Rotation } from "./rotary.js";

/** Inputs that all blocks of a forward pass share. */
export interface BlockInputs extends AttentionLabels {
  /** The rotation of queries and keys. */
  rotation: Rotation;
}

/** The parameters of an attention layer. */
export interface AttentionParts {
  hiddenSize: number;
  headDim: number;
  numAttentionHeads: number;
  numKeyValueHeads: number;
  attentionBias: boolean;
  attentionOutputBias: boolean;
  /** The sliding window: keys per query, its own included; 0 for no limit. */
  window: number;
  /** The factor of the scores; 1/√D by default. */
  scale?: number | undefined;
  /** Dropout of the attention weights in training. */
  attentionDropout: number;
  /** Creates the norm of each head's queries or keys, where there is one. */
  headNorm?: ((path: string) => RMSNorm) | undefined;
}

/** Causal self-attention. Maps x [B, T, C] to [B, T, C]; there may be fewer key/value heads than query heads. */
export class LlamaAttention extends Module {
  /** Number of query heads. */
  readonly heads: number;
  /** Number of key/value heads. */
  readonly keyValueHeads: number;
  /** The sliding window: keys per query, its own included; 0 for no limit. */
  readonly window: number;
  /** The factor of the scores. */
  readonly scale: number;
  /** Dropout of the attention weights in training. */
  readonly dropout: number;
  /** Queries. */
  q_proj: Linear;
  /** Keys. */
  k_proj: Linear;
  /** Values. */
  v_proj: Linear;
  /** The output projection. */
  o_proj: Linear;
  /** The norm of each head's queries, in Qwen3 and Gemma 3. */
  q_norm?: RMSNorm;
  /** The norm of each head's keys, in Qwen3 and Gemma 3. */
  k_norm?: RMSNorm;

  /** @internal */
  constructor(parts: AttentionParts, path: string, weights: Weights) {
    super();
    const { hiddenSize: C, headDim: D, numAttentionHeads: H, numKeyValueHeads: Hkv, attentionBias } = parts;
    this.heads = H;
    this.keyValueHeads = Hkv;
    this.window = parts.window;
    this.scale = parts.scale ?? 1 / Math.sqrt(D);
    this.dropout = parts.attentionDropout;
    this.q_proj = weights.linear(`${path}.q_proj`, C, H * D, attentionBias);
    this.k_proj = weights.linear(`${path}.k_proj`, C, Hkv * D, attentionBias);
    this.v_proj = weights.linear(`${path}.v_proj`, C, Hkv * D, attentionBias);
    this.o_proj = weights.linear(`${path}.o_proj`, H * D, C, parts.attentionOutputBias);
    if (parts.headNorm) {
      this.q_norm = parts.headNorm(`${path}.q_norm`);
      this.k_norm = parts.headNorm(`${path}.k_norm`);
    }
  }

  /** Maps x [B, T, C] to [B, T, C]. */
  forward(x: Tensor, { rotation, keyMask, segments }: BlockInputs, cache?: LayerCache): Tensor {
    const { heads, keyValueHeads, window, scale, q_proj, k_proj, v_proj } = this;
    const [q, k] = rotation.apply(
      normaliseHeads(splitHeads(q_proj.forward(x), heads), this.q_norm),
      normaliseHeads(splitHeads(k_proj.forward(x), keyValueHeads), this.k_norm),
    );
    const v = splitHeads(v_proj.forward(x), keyValueHeads);
    const seen = { causal: true, keyMask, segments, window, dropout: isTraining(this) ? this.dropout : 0 };
    return this.o_proj.forward(attend(q, k, v, { ...seen, scale, cache }));
  }
}

function normaliseHeads(x: Tensor, norm: RMSNorm | undefined): Tensor {
  return norm === undefined ? x : norm.forward(x);
}
