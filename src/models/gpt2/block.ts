/** The blocks of GPT-2 (Radford et al. 2019): norm, attention, norm, MLP. */
import { Dropout } from "../../nn/dropout.js";
import type { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import type { LayerNorm } from "../../nn/norm.js";
import { isTraining } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { activate, type ActivationName } from "../activation.js";
import { attend, type AttentionLabels, splitHeads } from "../attention.js";
import type { LayerCache } from "../cache.js";
import { normaliseSum, ResidualBlock, type Stream } from "../stream.js";
import type { LinearLayout, Weights } from "../weights.js";
import type { GPT2Config } from "./config.js";

/** GPT-2 stores its weights as [in, out]: transformers' Conv1D. */
const CONV1D = { fanInFanOut: true };

/** Layers that write to the residual stream start smaller, by 1/√(2 · layers) (Radford et al. 2019, 2.3). */
function scaleResidual({ numHiddenLayers }: GPT2Config): LinearLayout {
  return { ...CONV1D, scale: 1 / Math.sqrt(2 * numHiddenLayers) };
}

/** Causal self-attention with one projection for queries, keys and values. Maps x [B, T, C] to [B, T, C]. */
export class GPT2Attention extends Module {
  /** Number of heads. */
  readonly heads: number;
  /** The factor of the scores. */
  readonly scale: number;
  /** Dropout of the attention weights in training. */
  readonly dropout: number;
  /** The projection to queries, keys and values, in this order. */
  c_attn: Linear;
  /** The output projection. */
  c_proj: Linear;
  /** Dropout before the residual sum. */
  resid_dropout: Dropout;

  /** @internal */
  constructor(config: GPT2Config, layer: number, path: string, weights: Weights) {
    super();
    const { hiddenSize: C, numAttentionHeads: H } = config;
    this.heads = H;
    this.scale =
      (config.scaleAttnWeights ? 1 / Math.sqrt(C / H) : 1) /
      (config.scaleAttnByInverseLayerIdx ? layer + 1 : 1);
    this.dropout = config.attentionDropout;
    this.c_attn = weights.linear(`${path}.c_attn`, C, 3 * C, true, CONV1D);
    this.c_proj = weights.linear(`${path}.c_proj`, C, C, true, scaleResidual(config));
    this.resid_dropout = new Dropout(config.residPdrop);
  }

  /** Maps x [B, T, C] to [B, T, C]. */
  forward(x: Tensor, labels: AttentionLabels, cache?: LayerCache): Tensor {
    const C = x.shape[2] as number;
    const qkv = this.c_attn.forward(x);
    const [q, k, v] = qkv.split(C, 2).map((x) => splitHeads(x, this.heads)) as [Tensor, Tensor, Tensor];
    const dropout = isTraining(this) ? this.dropout : 0;
    const y = attend(q, k, v, { causal: true, ...labels, scale: this.scale, cache, dropout });
    return this.resid_dropout.forward(this.c_proj.forward(y));
  }
}

/** c_proj(activation(c_fc(x))). */
export class GPT2MLP extends Module {
  /** The activation between the two layers. */
  readonly activation: ActivationName;
  /** From C to the inner channels. */
  c_fc: Linear;
  /** From the inner channels to C. */
  c_proj: Linear;
  /** Dropout before the residual sum. */
  dropout: Dropout;

  /** @internal */
  constructor(config: GPT2Config, path: string, weights: Weights) {
    super();
    const { hiddenSize: C, intermediateSize } = config;
    this.activation = config.activation;
    this.c_fc = weights.linear(`${path}.c_fc`, C, intermediateSize, true, CONV1D);
    this.c_proj = weights.linear(`${path}.c_proj`, intermediateSize, C, true, scaleResidual(config));
    this.dropout = new Dropout(config.residPdrop);
  }

  /** Maps x [B, T, C] to [B, T, C]. */
  forward(x: Tensor): Tensor {
    return this.dropout.forward(this.c_proj.forward(activate(this.activation, this.c_fc.forward(x))));
  }
}

/** x + attention(norm(x)), then + mlp(norm(·)). */
export class GPT2Block extends ResidualBlock<[labels: AttentionLabels, cache?: LayerCache]> {
  /** The norm before attention. */
  ln_1: LayerNorm;
  /** Attention. */
  attn: GPT2Attention;
  /** The norm before the MLP. */
  ln_2: LayerNorm;
  /** The MLP. */
  mlp: GPT2MLP;

  /** @internal */
  constructor(config: GPT2Config, layer: number, path: string, weights: Weights) {
    super();
    const { hiddenSize, layerNormEps } = config;
    this.ln_1 = weights.layerNorm(`${path}.ln_1`, hiddenSize, layerNormEps);
    this.attn = new GPT2Attention(config, layer, `${path}.attn`, weights);
    this.ln_2 = weights.layerNorm(`${path}.ln_2`, hiddenSize, layerNormEps);
    this.mlp = new GPT2MLP(config, `${path}.mlp`, weights);
  }

  /** @internal Like `forward`, but leaves the last sum to the next reader. */
  run(stream: Stream, labels: AttentionLabels, cache?: LayerCache): Stream {
    const [x, y] = normaliseSum(this.ln_1, stream);
    const [attended, z] = normaliseSum(this.ln_2, { x, added: this.attn.forward(y, labels, cache) });
    return { x: attended, added: this.mlp.forward(z) };
  }
}
