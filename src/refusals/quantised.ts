/** Operations that do not support block-quantised weights. */
import type { Refusal } from "./refusal.js";

export const QUANTISED_REFUSALS = {
  merged: {
    what: "an adapter",
    where: "merged into a quantised weight",
    reason: "its difference would be lost where the sum is quantised again",
    instead:
      "load the model without `quantize`, or a GGUF file with a `dtype`, merge, and quantise what comes of it",
  },
  dora: {
    what: "DoRA",
    where: "over a quantised weight",
    reason: "it scales the norms of a weight of floats",
    instead: "load the model without `quantize`, or leave `useDora` out",
  },
  start: {
    what: "`initLoraWeights` pissa and olora",
    where: "over a quantised weight",
    reason: "an adapter takes its start out of the weight then",
    instead: "load the model without `quantize`, or start otherwise",
  },
  saved: {
    what: "a quantised weight",
    where: "saved by saveModel without a `dtype`",
    reason: "model.safetensors has no name for its blocks",
    instead: "give `dtype`, f16 say, to save what it stands for, or save the adapter alone",
  },
  quantizedFile: {
    what: "`quantize`",
    where: "with a GGUF file",
    reason: "it is as it was quantised",
    instead: "leave `quantize` out",
  },
} as const satisfies Record<string, Refusal>;
