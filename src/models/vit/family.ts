import type { Family } from "../family.js";
import { readViTConfig, type ViTConfig } from "./config.js";
import { convertToFileName, ViTForImageClassification } from "./model.js";

export const vit: Family<ViTConfig> = {
  modelTypes: ["vit"],
  read: ({ config, numLabels }) => readViTConfig(config, numLabels),
  naming: () => ({
    // Parts of a bare model for other tasks, and the decoder of masked image modelling.
    extras: /(^|\.)pooler\.|(^|\.)mask_token$|^decoder\./,
    prefix: "vit.",
    fresh: /^classifier\./,
    older: (name) => [convertToFileName(name)],
  }),
  tasks: { "image-classification": (config, weights) => new ViTForImageClassification(config, weights) },
};
