/** The blocks of the Llama family (Touvron et al. 2023): attention and a gated MLP, with a norm before each. */
import type { RMSNorm } from "../../nn/norm.js";
import { recordsNothing } from "../../tensor/scope.js";
import type { LayerCache } from "../cache.js";
import { normaliseSum, ResidualBlock, type Stream } from "../stream.js";
import type { Weights } from "../weights.js";
import { type BlockInputs, LlamaAttention } from "../decoder/attention.js";
import type { LlamaConfig } from "./config.js";
import { LlamaMLP } from "./mlp.js";
import { recordWhole } from "./recorded.js";

/** x + attention(norm(x)), then + mlp(norm(·)). */
export class LlamaBlock extends ResidualBlock<[inputs: BlockInputs, cache?: LayerCache]> {
  /** Attention. */
  self_attn: LlamaAttention;
  /** The MLP. */
  mlp: LlamaMLP;
  /** The norm before attention. */
  input_layernorm: RMSNorm;
  /** The norm before the MLP. */
  post_attention_layernorm: RMSNorm;

  /** @internal */
  constructor(config: LlamaConfig, index: number, weights: Weights) {
    super();
    const { hiddenSize, rmsNormEps, slidingLayers } = config;
    const path = `model.layers.${index}`;
    const window = (slidingLayers?.[index] ?? true) ? (config.slidingWindow ?? 0) : 0;
    const headNorm = config.headNorms
      ? (name: string): RMSNorm => weights.norm(name, config.headDim, rmsNormEps)
      : undefined;
    this.self_attn = new LlamaAttention({ ...config, window, headNorm }, `${path}.self_attn`, weights);
    this.mlp = new LlamaMLP(config, `${path}.mlp`, weights);
    this.input_layernorm = weights.norm(`${path}.input_layernorm`, hiddenSize, rmsNormEps);
    this.post_attention_layernorm = weights.norm(`${path}.post_attention_layernorm`, hiddenSize, rmsNormEps);
  }

  /** @internal Like `forward`, but leaves the last sum to the next reader. */
  run(stream: Stream, inputs: BlockInputs, cache?: LayerCache): Stream {
    const recorded = cache && recordsNothing() ? recordWhole(this, stream, inputs, cache) : undefined;
    if (recorded !== undefined) return recorded;
    const [x, y] = normaliseSum(this.input_layernorm, stream);
    const added = this.self_attn.forward(y, inputs, cache);
    const [attended, z] = normaliseSum(this.post_attention_layernorm, { x, added });
    return { x: attended, added: this.mlp.forward(z) };
  }
}
