import type { Family } from "../family.js";
import { readWhisperConfig, type WhisperConfig } from "./config.js";
import { checkFeatureConfig } from "./features.js";
import { WhisperForConditionalGeneration } from "./model.js";

export const whisper: Family<WhisperConfig> = {
  modelTypes: ["whisper"],
  read: ({ config, generation, folder }) => {
    const read = readWhisperConfig(config, generation);
    checkFeatureConfig(folder, read);
    return read;
  },
  naming: () => ({
    // Heads of audio classification.
    extras: /^(layer_weights|projector\..*|classifier\..*)$/,
    prefix: "model.",
  }),
  tasks: { "speech-to-text": (config, weights) => new WhisperForConditionalGeneration(config, weights) },
  doubled: (config) => (config.tieWordEmbeddings ? ["proj_out.weight"] : []),
};
