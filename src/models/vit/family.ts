import type { Family } from "../family.js";
import { vitConfig, type ViTConfig } from "./config.js";
import { fileName, ViTForImageClassification } from "./model.js";

export const vit: Family<ViTConfig> = {
  modelTypes: ["vit"],
  read: ({ config, numLabels }) => vitConfig(config, numLabels),
  naming: () => ({
    // What a bare model has for other tasks, and that of masked images.
    extras: /(^|\.)pooler\.|(^|\.)mask_token$|^decoder\./,
    prefix: "vit.",
    fresh: /^classifier\./,
    older: (name) => [fileName(name)],
  }),
  tasks: { "image-classification": (config, weights) => new ViTForImageClassification(config, weights) },
};
