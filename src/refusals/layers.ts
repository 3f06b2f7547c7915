/** Features of PyTorch's layers that are not supported, and invalid combinations. */
import type { Refusal } from "./refusal.js";

export const LAYER_REFUSALS = {
  samePadding: {
    what: 'padding "same"',
    where: "with a stride above 1",
    reason: "the output size would differ from the input size",
    instead: "give the padding as a number",
  },
  maxNorm: {
    what: "maxNorm",
    where: "of nn.Embedding",
    reason: "it rewrites the weight in forward",
    instead: "scale the rows by hand",
  },
} as const satisfies Record<string, Refusal>;
