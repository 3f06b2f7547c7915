/** What plain layers refuse, where PyTorch has it or a combination has no meaning. */
import type { Refusal } from "./refusal.js";

export const LAYER_REFUSALS = {
  samePadding: {
    what: 'padding "same"',
    where: "with a stride above 1",
    reason: "the size is not kept then",
    instead: "give the padding as a number",
  },
  maxNorm: {
    what: "maxNorm",
    where: "of nn.Embedding",
    reason: "it rewrites the weight in forward",
    instead: "scale the rows by hand",
  },
} as const satisfies Record<string, Refusal>;
