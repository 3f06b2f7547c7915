/** Registers PEFT's default targets of the model families. Source: PEFT's utils/constants.py. */
import { registerTargets } from "../lora/options/targets.js";

const QUERY_VALUE = ["q_proj", "v_proj"];

registerTargets({
  llama: QUERY_VALUE,
  mistral: QUERY_VALUE,
  qwen2: QUERY_VALUE,
  qwen3: QUERY_VALUE,
  gemma3_text: QUERY_VALUE,
  gpt2: ["c_attn"],
  bert: ["query", "value"],
  roberta: ["query", "value"],
});
