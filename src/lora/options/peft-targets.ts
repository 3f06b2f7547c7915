/** PEFT's default targets by `model_type`. Source: TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING in PEFT's utils/constants.py. */
const QUERY_VALUE = ["q_proj", "v_proj"];

export const PEFT_TARGETS: Readonly<Record<string, readonly string[]>> = {
  llama: QUERY_VALUE,
  mistral: QUERY_VALUE,
  qwen2: QUERY_VALUE,
  qwen3: QUERY_VALUE,
  gemma3_text: QUERY_VALUE,
  gpt2: ["c_attn"],
  bert: ["query", "value"],
  roberta: ["query", "value"],
};
