import type { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import { isTraining } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { attend, splitHeads } from "../attention.js";
import type { LayerCache } from "../cache.js";
import type { Weights } from "../weights.js";
import type { WhisperConfig } from "./config.js";

/** Keys and values [B, S, H, D]. */
export interface KeysAndValues {
  /** Keys. */
  readonly k: Tensor;
  /** Values. */
  readonly v: Tensor;
}

/**
 * Attention of the encoder over all positions, and of the decoder over previous tokens or over the encoder's output.
 * The key projection has no bias.
 */
export class WhisperAttention extends Module {
  /** Number of heads. */
  readonly heads: number;
  /** Dropout of the attention weights in training. */
  readonly dropout: number;
  /** Keys. */
  k_proj: Linear;
  /** Values. */
  v_proj: Linear;
  /** Queries. */
  q_proj: Linear;
  /** The output projection. */
  out_proj: Linear;

  /** @internal */
  constructor(
    { hiddenSize: C, attentionDropout }: WhisperConfig,
    heads: number,
    path: string,
    weights: Weights,
  ) {
    super();
    this.heads = heads;
    this.dropout = attentionDropout;
    this.k_proj = weights.linear(`${path}.k_proj`, C, C, false);
    this.v_proj = weights.linear(`${path}.v_proj`, C, C, true);
    this.q_proj = weights.linear(`${path}.q_proj`, C, C, true);
    this.out_proj = weights.linear(`${path}.out_proj`, C, C, true);
  }

  /** Self-attention. Maps x [B, T, C] to [B, T, C]; `causal` hides later positions. */
  forward(x: Tensor, { causal, cache }: { causal: boolean; cache?: LayerCache | undefined }): Tensor {
    const { k, v } = this.projectKeysAndValues(x);
    const y = attend(splitHeads(this.q_proj.forward(x), this.heads), k, v, {
      causal,
      cache,
      dropout: isTraining(this) ? this.dropout : 0,
    });
    return this.out_proj.forward(y);
  }

  /** Cross-attention. Maps x [B, T, C] to [B, T, C], over given keys and values. */
  attendAcross(x: Tensor, { k, v }: KeysAndValues): Tensor {
    const q = splitHeads(this.q_proj.forward(x), this.heads);
    return this.out_proj.forward(attend(q, k, v, { dropout: isTraining(this) ? this.dropout : 0 }));
  }

  /** Projects states [B, S, C] to keys and values. */
  projectKeysAndValues(states: Tensor): KeysAndValues {
    return {
      k: splitHeads(this.k_proj.forward(states), this.heads),
      v: splitHeads(this.v_proj.forward(states), this.heads),
    };
  }
}
