import type { Family } from "../family.js";
import { readGpt2Config, type GPT2Config } from "./config.js";
import { GPT2LMHeadModel } from "./model.js";

export const gpt2: Family<GPT2Config> = {
  modelTypes: ["gpt2"],
  read: ({ config, generation }) => readGpt2Config(config, generation),
  naming: () => ({
    // The causal mask buffer of older files, and the heads of other tasks.
    extras: /(^|\.)h\.\d+\.attn\.(bias|masked_bias)$|^score\.weight$|^classifier\.|^multiple_choice_head\./,
    prefix: "transformer.",
  }),
  tasks: { "causal-lm": (config, weights) => new GPT2LMHeadModel(config, weights) },
  doubled: (config) => (config.tieWordEmbeddings ? ["lm_head.weight"] : []),
};
