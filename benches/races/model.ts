/** The model of SmolLM2-135M's shape, with random weights. */
import { llamaConfig } from "../../src/models/llama/config.js";
import { LlamaForCausalLM } from "../../src/models/llama/model.js";
import { FreshWeights } from "../../src/models/weights.js";
import { noGrad } from "../../src/scope.js";
import type { Tensor } from "../../src/tensor.js";

export const VOCABULARY = 49152;

/** Drawn in f32, and stored as `bf16`. */
class HalfWeights extends FreshWeights {
  override take(...of: Parameters<FreshWeights["take"]>): Tensor {
    const drawn = super.take(...of);
    const half = noGrad(() => drawn.to("bf16"));
    // A parameter outlives its scope.
    drawn.dispose();
    return half;
  }
}

export function model({ dtype = "f32" as "f32" | "bf16", layers = 30 } = {}): LlamaForCausalLM {
  const config = llamaConfig({
    model_type: "llama",
    vocab_size: VOCABULARY,
    hidden_size: 576,
    intermediate_size: 1536,
    num_hidden_layers: layers,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-5,
    rope_theta: 100_000,
    tie_word_embeddings: true,
    bos_token_id: 0,
    eos_token_id: 0,
  });
  return new LlamaForCausalLM(config, dtype === "bf16" ? new HalfWeights("cpu") : new FreshWeights("cpu"));
}
