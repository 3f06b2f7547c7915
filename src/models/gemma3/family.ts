import type { Family } from "../family.js";
import { readGemma3Config, type Gemma3Config } from "./config.js";
import { Gemma3ForCausalLM } from "./model.js";

export const gemma3: Family<Gemma3Config> = {
  modelTypes: ["gemma3_text"],
  read: ({ config, generation }) => readGemma3Config(config, generation),
  naming: () => ({ extras: /^(score|classifier)\./, prefix: "model." }),
  tasks: { "causal-lm": (config, weights) => new Gemma3ForCausalLM(config, weights) },
  doubled: (config) => (config.tieWordEmbeddings ? ["lm_head.weight"] : []),
};
