/** The blocks of ViT (Dosovitskiy et al. 2020): norm, attention over all patches, norm, MLP. */
import { Dropout } from "../../nn/dropout.js";
import type { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import type { LayerNorm } from "../../nn/norm.js";
import { isTraining } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { activate, type ActivationName } from "../activation.js";
import { attend, splitHeads } from "../attention.js";
import { normaliseSum, ResidualBlock, type Stream } from "../stream.js";
import type { Weights } from "../weights.js";
import type { ViTConfig } from "./config.js";

/** Self-attention over all patches. Maps x [B, T, C] to [B, T, C]. */
export class ViTAttention extends Module {
  /** Number of heads. */
  readonly heads: number;
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

  /** @internal */
  constructor(
    { hiddenSize: C, numAttentionHeads, qkvBias, attentionDropout }: ViTConfig,
    path: string,
    weights: Weights,
  ) {
    super();
    this.heads = numAttentionHeads;
    this.dropout = attentionDropout;
    this.q_proj = weights.linear(`${path}.q_proj`, C, C, qkvBias);
    this.k_proj = weights.linear(`${path}.k_proj`, C, C, qkvBias);
    this.v_proj = weights.linear(`${path}.v_proj`, C, C, qkvBias);
    this.o_proj = weights.linear(`${path}.o_proj`, C, C, true);
  }

  /** Maps x [B, T, C] to [B, T, C]. */
  forward(x: Tensor): Tensor {
    const inputs = (layer: Linear): Tensor => splitHeads(layer.forward(x), this.heads);
    const [q, k, v] = [inputs(this.q_proj), inputs(this.k_proj), inputs(this.v_proj)];
    return this.o_proj.forward(attend(q, k, v, { dropout: isTraining(this) ? this.dropout : 0 }));
  }
}

/** fc2(activation(fc1(x))). */
export class ViTMLP extends Module {
  /** The activation between the two layers. */
  readonly activation: ActivationName;
  /** From C to the inner channels. */
  fc1: Linear;
  /** From the inner channels to C. */
  fc2: Linear;

  /** @internal */
  constructor({ hiddenSize: C, intermediateSize, activation }: ViTConfig, path: string, weights: Weights) {
    super();
    this.activation = activation;
    this.fc1 = weights.linear(`${path}.fc1`, C, intermediateSize, true);
    this.fc2 = weights.linear(`${path}.fc2`, intermediateSize, C, true);
  }

  /** Maps x [B, T, C] to [B, T, C]. */
  forward(x: Tensor): Tensor {
    return this.fc2.forward(activate(this.activation, this.fc1.forward(x)));
  }
}

/** x + attention(norm(x)), then + mlp(norm(·)). */
export class ViTLayer extends ResidualBlock {
  /** Attention. */
  attention: ViTAttention;
  /** The norm before attention. */
  layernorm_before: LayerNorm;
  /** The norm before the MLP. */
  layernorm_after: LayerNorm;
  /** The MLP. */
  mlp: ViTMLP;
  /** Dropout before the residual sum. */
  dropout: Dropout;

  /** @internal */
  constructor(config: ViTConfig, path: string, weights: Weights) {
    super();
    const { hiddenSize, layerNormEps, hiddenDropout } = config;
    this.attention = new ViTAttention(config, `${path}.attention`, weights);
    this.layernorm_before = weights.layerNorm(`${path}.layernorm_before`, hiddenSize, layerNormEps);
    this.layernorm_after = weights.layerNorm(`${path}.layernorm_after`, hiddenSize, layerNormEps);
    this.mlp = new ViTMLP(config, `${path}.mlp`, weights);
    this.dropout = new Dropout(hiddenDropout);
  }

  /** @internal Like `forward`, but leaves the last sum to the next reader. */
  run(stream: Stream): Stream {
    const [x, y] = normaliseSum(this.layernorm_before, stream);
    const added = this.dropout.forward(this.attention.forward(y));
    const [attended, z] = normaliseSum(this.layernorm_after, { x, added });
    return { x: attended, added: this.dropout.forward(this.mlp.forward(z)) };
  }
}
