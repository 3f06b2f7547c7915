import type { Family } from "../family.js";
import { readPhi3Config, type Phi3Config } from "./config.js";
import { Phi3ForCausalLM } from "./model.js";

export const phi3: Family<Phi3Config> = {
  modelTypes: ["phi3"],
  read: ({ config, generation }) => readPhi3Config(config, generation),
  naming: () => ({ extras: /(^|\.)rotary_emb\.inv_freq$|^(score|classifier)\./, prefix: "model." }),
  tasks: { "causal-lm": (config, weights) => new Phi3ForCausalLM(config, weights) },
  doubled: (config) => (config.tieWordEmbeddings ? ["lm_head.weight"] : []),
};
