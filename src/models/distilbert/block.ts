/** The blocks of DistilBERT (Sanh et al. 2019): attention over all tokens, MLP, each followed by a norm. */
import { Dropout } from "../../nn/dropout.js";
import type { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import type { LayerNorm } from "../../nn/norm.js";
import { isTraining } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { activate, type ActivationName } from "../activation.js";
import { attend, splitHeads } from "../attention.js";
import { normaliseSum } from "../stream.js";
import type { Weights } from "../weights.js";
import type { DistilBertConfig } from "./config.js";

/** The epsilon of every LayerNorm; the configuration has no field for it. */
export const NORM_EPS = 1e-12;

/** Self-attention. */
export class DistilBertSelfAttention extends Module {
  /** Number of heads. */
  readonly heads: number;
  /** Dropout of the attention weights in training. */
  readonly dropout: number;
  /** Queries. */
  q_lin: Linear;
  /** Keys. */
  k_lin: Linear;
  /** Values. */
  v_lin: Linear;
  /** The output projection. */
  out_lin: Linear;

  /** @internal */
  constructor(
    { hiddenSize: C, numAttentionHeads, attentionDropout }: DistilBertConfig,
    path: string,
    weights: Weights,
  ) {
    super();
    this.heads = numAttentionHeads;
    this.dropout = attentionDropout;
    this.q_lin = weights.linear(`${path}.q_lin`, C, C, true);
    this.k_lin = weights.linear(`${path}.k_lin`, C, C, true);
    this.v_lin = weights.linear(`${path}.v_lin`, C, C, true);
    this.out_lin = weights.linear(`${path}.out_lin`, C, C, true);
  }

  /** Maps x [B, T, C] to [B, T, C]; `mask` i32 [B, T] is 0 for hidden keys. */
  forward(x: Tensor, mask: Tensor | undefined): Tensor {
    const inputs = (layer: Linear): Tensor => splitHeads(layer.forward(x), this.heads);
    const dropout = isTraining(this) ? this.dropout : 0;
    const y = attend(inputs(this.q_lin), inputs(this.k_lin), inputs(this.v_lin), {
      keyMask: mask,
      dropout,
    });
    return this.out_lin.forward(y);
  }
}

/** lin2(activation(lin1(x))). */
export class DistilBertFFN extends Module {
  /** The activation between the two layers. */
  readonly activation: ActivationName;
  /** From C to the inner channels. */
  lin1: Linear;
  /** From the inner channels to C. */
  lin2: Linear;
  /** Dropout before the residual sum. */
  dropout: Dropout;

  /** @internal */
  constructor(config: DistilBertConfig, path: string, weights: Weights) {
    super();
    const { hiddenSize: C, intermediateSize } = config;
    this.activation = config.activation;
    this.lin1 = weights.linear(`${path}.lin1`, C, intermediateSize, true);
    this.lin2 = weights.linear(`${path}.lin2`, intermediateSize, C, true);
    this.dropout = new Dropout(config.dropout);
  }

  /** Maps x [B, T, C] to [B, T, C]. */
  forward(x: Tensor): Tensor {
    return this.dropout.forward(this.lin2.forward(activate(this.activation, this.lin1.forward(x))));
  }
}

/** A block: attention and MLP, each followed by a norm. */
export class DistilBertBlock extends Module {
  /** Attention. */
  attention: DistilBertSelfAttention;
  /** The norm after attention. */
  sa_layer_norm: LayerNorm;
  /** The MLP. */
  ffn: DistilBertFFN;
  /** The norm after the MLP. */
  output_layer_norm: LayerNorm;

  /** @internal */
  constructor(config: DistilBertConfig, path: string, weights: Weights) {
    super();
    const { hiddenSize: C } = config;
    this.attention = new DistilBertSelfAttention(config, `${path}.attention`, weights);
    this.sa_layer_norm = weights.layerNorm(`${path}.sa_layer_norm`, C, NORM_EPS);
    this.ffn = new DistilBertFFN(config, `${path}.ffn`, weights);
    this.output_layer_norm = weights.layerNorm(`${path}.output_layer_norm`, C, NORM_EPS);
  }

  /** Maps x [B, T, C] to [B, T, C]; `mask` i32 [B, T] is 0 for hidden keys. */
  forward(x: Tensor, mask: Tensor | undefined): Tensor {
    const [, attended] = normaliseSum(this.sa_layer_norm, { x: this.attention.forward(x, mask), added: x });
    return normaliseSum(this.output_layer_norm, { x: this.ffn.forward(attended), added: attended })[1];
  }
}
