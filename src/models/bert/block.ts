/** The blocks of BERT (Devlin et al. 2018): attention over all tokens, MLP, each followed by a norm. */
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
import type { BertConfig } from "./config.js";

/** Self-attention without its output layer. */
export class BertSelfAttention extends Module {
  /** Number of heads. */
  readonly heads: number;
  /** Dropout of the attention weights in training. */
  readonly dropout: number;
  /** Queries. */
  query: Linear;
  /** Keys. */
  key: Linear;
  /** Values. */
  value: Linear;

  /** @internal */
  constructor(
    { hiddenSize: C, numAttentionHeads, attentionDropout }: BertConfig,
    path: string,
    weights: Weights,
  ) {
    super();
    this.heads = numAttentionHeads;
    this.dropout = attentionDropout;
    this.query = weights.linear(`${path}.query`, C, C, true);
    this.key = weights.linear(`${path}.key`, C, C, true);
    this.value = weights.linear(`${path}.value`, C, C, true);
  }

  /** Maps x [B, T, C] to [B, T, C]; `mask` i32 [B, T] is 0 for hidden keys. */
  forward(x: Tensor, mask: Tensor | undefined): Tensor {
    const inputs = (layer: Linear): Tensor => splitHeads(layer.forward(x), this.heads);
    const dropout = isTraining(this) ? this.dropout : 0;
    return attend(inputs(this.query), inputs(this.key), inputs(this.value), { keyMask: mask, dropout });
  }
}

/** norm(residual + dropout(dense(x))). */
export class BertOutput extends Module {
  /** The linear layer to C channels. */
  dense: Linear;
  /** The norm of the sum. */
  LayerNorm: LayerNorm;
  /** Dropout before the residual sum. */
  dropout: Dropout;

  /** @internal */
  constructor(config: BertConfig, inFeatures: number, path: string, weights: Weights) {
    super();
    this.dense = weights.linear(`${path}.dense`, inFeatures, config.hiddenSize, true);
    this.LayerNorm = weights.layerNorm(`${path}.LayerNorm`, config.hiddenSize, config.layerNormEps);
    this.dropout = new Dropout(config.hiddenDropout);
  }

  /** Maps x [B, T, in] and residual [B, T, C] to [B, T, C]. */
  forward(x: Tensor, residual: Tensor): Tensor {
    const output = this.dropout.forward(this.dense.forward(x));
    return normaliseSum(this.LayerNorm, { x: output, added: residual })[1];
  }
}

/** Self-attention, residual sum and norm. */
export class BertAttention extends Module {
  /** Self-attention. */
  self: BertSelfAttention;
  /** The output projection, residual sum and norm. */
  output: BertOutput;

  /** @internal */
  constructor(config: BertConfig, path: string, weights: Weights) {
    super();
    this.self = new BertSelfAttention(config, `${path}.self`, weights);
    this.output = new BertOutput(config, config.hiddenSize, `${path}.output`, weights);
  }

  /** Maps x [B, T, C] to [B, T, C]; `mask` i32 [B, T] is 0 for hidden keys. */
  forward(x: Tensor, mask: Tensor | undefined): Tensor {
    return this.output.forward(this.self.forward(x, mask), x);
  }
}

/** activation(dense(x)). */
export class BertIntermediate extends Module {
  /** The activation after the linear layer. */
  readonly activation: ActivationName;
  /** From C to the inner channels. */
  dense: Linear;

  /** @internal */
  constructor(config: BertConfig, path: string, weights: Weights) {
    super();
    this.activation = config.activation;
    this.dense = weights.linear(`${path}.dense`, config.hiddenSize, config.intermediateSize, true);
  }

  /** Maps x [B, T, C] to [B, T, inner]. */
  forward(x: Tensor): Tensor {
    return activate(this.activation, this.dense.forward(x));
  }
}

/** A block: attention and MLP, each followed by a norm. */
export class BertLayer extends Module {
  /** Self-attention, residual sum and norm. */
  attention: BertAttention;
  /** The first half of the MLP. */
  intermediate: BertIntermediate;
  /** The second half of the MLP, residual sum and norm. */
  output: BertOutput;

  /** @internal */
  constructor(config: BertConfig, path: string, weights: Weights) {
    super();
    this.attention = new BertAttention(config, `${path}.attention`, weights);
    this.intermediate = new BertIntermediate(config, `${path}.intermediate`, weights);
    this.output = new BertOutput(config, config.intermediateSize, `${path}.output`, weights);
  }

  /** Maps x [B, T, C] to [B, T, C]; `mask` i32 [B, T] is 0 for hidden keys. */
  forward(x: Tensor, mask: Tensor | undefined): Tensor {
    const attended = this.attention.forward(x, mask);
    return this.output.forward(this.intermediate.forward(attended), attended);
  }
}
