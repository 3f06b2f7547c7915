/** The blocks of Phi-3 (Abdin et al. 2024): Llama's, with fused projections for q, k and v, and for gate and up. */
import { Dropout } from "../../nn/dropout.js";
import type { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import type { RMSNorm } from "../../nn/norm.js";
import { isTraining } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { attend, splitHeads } from "../attention.js";
import type { LayerCache } from "../cache.js";
import type { BlockInputs } from "../decoder/attention.js";
import { normaliseSum, ResidualBlock, type Stream } from "../stream.js";
import type { Weights } from "../weights.js";
import type { Phi3Config } from "./config.js";

/** Causal self-attention. Maps x [B, T, C] to [B, T, C]. */
export class Phi3Attention extends Module {
  /** Number of query heads. */
  readonly heads: number;
  /** Number of key/value heads. */
  readonly keyValueHeads: number;
  /** Channels of a head. */
  readonly headDim: number;
  /** The sliding window: keys per query, its own included; 0 for no limit. */
  readonly window: number;
  /** Dropout of the attention weights in training. */
  readonly dropout: number;
  /** The projection to queries, keys and values, in this order. */
  qkv_proj: Linear;
  /** The output projection. */
  o_proj: Linear;

  /** @internal */
  constructor(config: Phi3Config, path: string, weights: Weights) {
    super();
    const { hiddenSize: C, headDim: D, numAttentionHeads: H, numKeyValueHeads: Hkv } = config;
    this.heads = H;
    this.keyValueHeads = Hkv;
    this.headDim = D;
    this.window = config.slidingWindow ?? 0;
    this.dropout = config.attentionDropout;
    this.qkv_proj = weights.linear(`${path}.qkv_proj`, C, (H + 2 * Hkv) * D, false);
    this.o_proj = weights.linear(`${path}.o_proj`, H * D, C, false);
  }

  /** Maps x [B, T, C] to [B, T, C]. */
  forward(x: Tensor, { rotation, keyMask, segments }: BlockInputs, cache?: LayerCache): Tensor {
    const { heads, keyValueHeads, headDim: D, window } = this;
    const qkv = splitHeads(this.qkv_proj.forward(x), heads + 2 * keyValueHeads);
    const part = (start: number, count: number): Tensor => qkv.slice(2, start, start + count);
    const [q, k] = rotation.apply(part(0, heads), part(heads, keyValueHeads));
    const v = part(heads + keyValueHeads, keyValueHeads);
    const scale = 1 / Math.sqrt(D);
    const seen = { causal: true, keyMask, segments, window, dropout: isTraining(this) ? this.dropout : 0 };
    return this.o_proj.forward(attend(q, k, v, { ...seen, scale, cache }));
  }
}

/** down(silu(gate(x)) · up(x)) (Shazeer 2020). */
export class Phi3MLP extends Module {
  /** From C to twice the inner channels: gate, then up. */
  gate_up_proj: Linear;
  /** From the inner channels to C. */
  down_proj: Linear;

  /** @internal */
  constructor({ hiddenSize: C, intermediateSize }: Phi3Config, path: string, weights: Weights) {
    super();
    this.gate_up_proj = weights.linear(`${path}.gate_up_proj`, C, 2 * intermediateSize, false);
    this.down_proj = weights.linear(`${path}.down_proj`, intermediateSize, C, false);
  }

  /** Maps x [B, T, C] to [B, T, C]. */
  forward(x: Tensor): Tensor {
    const gateAndUp = this.gate_up_proj.forward(x);
    const [gate, up] = gateAndUp.split((gateAndUp.shape.at(-1) as number) / 2, 2) as [Tensor, Tensor];
    return this.down_proj.forward(gate.siluMul(up));
  }
}

/** x + attention(norm(x)), then + mlp(norm(·)). */
export class Phi3Block extends ResidualBlock<[inputs: BlockInputs, cache?: LayerCache]> {
  /** Attention. */
  self_attn: Phi3Attention;
  /** The MLP. */
  mlp: Phi3MLP;
  /** The norm before attention. */
  input_layernorm: RMSNorm;
  /** The norm before the MLP. */
  post_attention_layernorm: RMSNorm;
  /** Dropout after attention. */
  resid_attn_dropout: Dropout;
  /** Dropout after the MLP. */
  resid_mlp_dropout: Dropout;

  /** @internal */
  constructor(config: Phi3Config, index: number, weights: Weights) {
    super();
    const { hiddenSize, rmsNormEps, residPdrop } = config;
    const path = `model.layers.${index}`;
    this.self_attn = new Phi3Attention(config, `${path}.self_attn`, weights);
    this.mlp = new Phi3MLP(config, `${path}.mlp`, weights);
    this.input_layernorm = weights.norm(`${path}.input_layernorm`, hiddenSize, rmsNormEps);
    this.post_attention_layernorm = weights.norm(`${path}.post_attention_layernorm`, hiddenSize, rmsNormEps);
    this.resid_attn_dropout = new Dropout(residPdrop);
    this.resid_mlp_dropout = new Dropout(residPdrop);
  }

  /** @internal Like `forward`, but leaves the last sum to the next reader. */
  run(stream: Stream, inputs: BlockInputs, cache?: LayerCache): Stream {
    const [x, y] = normaliseSum(this.input_layernorm, stream);
    const added = this.resid_attn_dropout.forward(this.self_attn.forward(y, inputs, cache));
    const [attended, z] = normaliseSum(this.post_attention_layernorm, { x, added });
    return { x: attended, added: this.resid_mlp_dropout.forward(this.mlp.forward(z)) };
  }
}
