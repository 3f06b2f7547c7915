/**
 * The blocks of Gemma 3 (Gemma Team 2025): Llama's attention with head norms, a gated MLP, and norms before and after
 * both.
 */
import type { Tensor } from "../../tensor/tensor.js";
import { activate, type ActivationName } from "../activation.js";
import type { LayerCache } from "../cache.js";
import { LlamaAttention, type BlockInputs } from "../decoder/attention.js";
import { LlamaMLP } from "../llama/mlp.js";
import { normaliseSum, ResidualBlock, type Stream } from "../stream.js";
import type { Weights } from "../weights.js";
import type { Gemma3Config } from "./config.js";
import { takeGemmaNorm, type Gemma3RMSNorm } from "./norm.js";

/** down(gelu(gate(x)) · up(x)) (Shazeer 2020). */
export class Gemma3MLP extends LlamaMLP {
  /** The activation of gate. */
  readonly activation: ActivationName;

  /** @internal */
  constructor(config: Gemma3Config, path: string, weights: Weights) {
    super({ ...config, mlpBias: false }, path, weights);
    this.activation = config.activation;
  }

  /** Maps x [B, T, C] to [B, T, C]. */
  override forward(x: Tensor): Tensor {
    const [gate, up] = [this.gate_proj.forward(x), this.up_proj.forward(x)];
    return this.down_proj.forward(activate(this.activation, gate).mul(up));
  }
}

/** x + norm(attention(norm(x))), then + norm(mlp(norm(·))). */
export class Gemma3Block extends ResidualBlock<[inputs: BlockInputs, cache?: LayerCache]> {
  /** Whether attention has a sliding window. */
  readonly slides: boolean;
  /** Attention. */
  self_attn: LlamaAttention;
  /** The MLP. */
  mlp: Gemma3MLP;
  /** The norm before attention. */
  input_layernorm: Gemma3RMSNorm;
  /** The norm after attention. */
  post_attention_layernorm: Gemma3RMSNorm;
  /** The norm before the MLP. */
  pre_feedforward_layernorm: Gemma3RMSNorm;
  /** The norm after the MLP. */
  post_feedforward_layernorm: Gemma3RMSNorm;

  /** @internal */
  constructor(config: Gemma3Config, index: number, weights: Weights) {
    super();
    const { hiddenSize, headDim, rmsNormEps: eps, attentionBias: attentionOutputBias } = config;
    const path = `model.layers.${index}`;
    const takeNorm = (name: string): Gemma3RMSNorm =>
      takeGemmaNorm(weights, `${path}.${name}`, hiddenSize, eps);
    this.slides = config.slidingLayers[index] === true;
    const parts = {
      ...config,
      attentionOutputBias,
      window: this.slides ? config.slidingWindow : 0,
      scale: 1 / Math.sqrt(config.queryPreAttnScalar),
      headNorm: (name: string) => takeGemmaNorm(weights, name, headDim, eps),
    };
    this.self_attn = new LlamaAttention(parts, `${path}.self_attn`, weights);
    this.mlp = new Gemma3MLP(config, `${path}.mlp`, weights);
    this.input_layernorm = takeNorm("input_layernorm");
    this.post_attention_layernorm = takeNorm("post_attention_layernorm");
    this.pre_feedforward_layernorm = takeNorm("pre_feedforward_layernorm");
    this.post_feedforward_layernorm = takeNorm("post_feedforward_layernorm");
  }

  /** @internal Like `forward`, but leaves the last sum to the next reader. */
  run(stream: Stream, inputs: BlockInputs, cache?: LayerCache): Stream {
    const [x, y] = normaliseSum(this.input_layernorm, stream);
    const added = this.post_attention_layernorm.forward(this.self_attn.forward(y, inputs, cache));
    const [attended, z] = normaliseSum(this.pre_feedforward_layernorm, { x, added });
    return { x: attended, added: this.post_feedforward_layernorm.forward(this.mlp.forward(z)) };
  }
}
