import type { Family } from "../family.js";
import { readLlamaConfig, type LlamaConfig } from "./config.js";
import { LlamaForCausalLM } from "./model.js";
import { MODEL_TYPES } from "./variants.js";

export const llama: Family<LlamaConfig> = {
  modelTypes: MODEL_TYPES,
  read: ({ config, generation }) => readLlamaConfig(config, generation),
  naming: () => ({
    // Buffers of older transformers, and the heads of other tasks.
    extras: /(^|\.)rotary_emb\.inv_freq$|^score\.(weight|bias)$|^classifier\./,
    prefix: "model.",
  }),
  tasks: { "causal-lm": (config, weights) => new LlamaForCausalLM(config, weights) },
  doubled: (config) => (config.tieWordEmbeddings ? ["lm_head.weight"] : []),
};
