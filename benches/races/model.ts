/** The model of SmolLM2-135M's shape, with random weights. */
import { LlamaForCausalLM } from "../../src/index.js";

export const VOCABULARY = 49152;

export function model({ dtype = "f32" as "f32" | "bf16", layers = 30 } = {}): LlamaForCausalLM {
  const config = {
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
  };
  return LlamaForCausalLM.fromConfig(config, { device: "cpu", dtype });
}
