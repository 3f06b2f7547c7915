import type { Family } from "../family.js";
import { vitConfig, type ViTConfig } from "./config.js";
import { fileName, ViTForImageClassification } from "./model.js";

export const vit: Family<ViTConfig> = {
  modelTypes: ["vit"],
  read: ({ config, numLabels }) => vitConfig(config, numLabels),
  naming: () => ({
    // Parts of a bare model for other tasks, and the decoder of masked image modelling.
    extras: /(^|\.)pooler\.|(^|\.)mask_token$|^decoder\./,
    prefix: "vit.",
    fresh: /^classifier\./,
    older: (name) => [fileName(name)],
  }),
  tasks: { "image-classification": (config, weights) => new ViTForImageClassification(config, weights) },
};
