/** Models with random weights and the shapes of published ones: the counterparts of peer.py's. */
import { LlamaForCausalLM } from "../../src/index.js";
import { SHAPES } from "./shapes.js";

export interface ModelOptions {
  shape?: keyof typeof SHAPES;
  dtype?: "f32" | "bf16";
  layers?: number | undefined;
}

export function model({
  shape = "smollm2-135m",
  dtype = "f32",
  layers,
}: ModelOptions = {}): LlamaForCausalLM {
  const of = SHAPES[shape];
  const config = {
    vocab_size: of.vocabulary,
    hidden_size: of.width,
    intermediate_size: of.inner,
    num_hidden_layers: layers ?? of.layers,
    num_attention_heads: of.heads,
    num_key_value_heads: of.keyHeads,
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-5,
    rope_theta: 100_000,
    tie_word_embeddings: true,
    bos_token_id: 0,
    eos_token_id: 0,
  };
  return LlamaForCausalLM.fromConfig(config, { device: "cpu", dtype });
}
