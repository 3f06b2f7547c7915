/** Operations that do not support block-quantised weights. */
import type { Refusal } from "./refusal.js";

export const QUANTISED_REFUSALS = {
  merged: {
    what: "an adapter",
    where: "merged into a quantised weight",
    reason: "quantising the sum again would lose the difference",
    instead:
      "load the model without `quantize`, or a GGUF file with a `dtype`, merge, and quantise the result",
  },
  dora: {
    what: "DoRA",
    where: "over a quantised weight",
    reason: "it rescales the weight, which requires floats",
    instead: "load the model without `quantize`, or leave `useDora` out",
  },
  start: {
    what: "`initLoraWeights` pissa and olora",
    where: "over a quantised weight",
    reason: "they subtract the start from the weight",
    instead: "load the model without `quantize`, or start otherwise",
  },
  saved: {
    what: "a quantised weight",
    where: "saved by saveModel without a `dtype`",
    reason: "model.safetensors cannot store blocks",
    instead: "give `dtype`, f16 say, to save its dequantised values, or save the adapter alone",
  },
  quantizedFile: {
    what: "`quantize`",
    where: "with a GGUF file",
    reason: "the file is already quantised",
    instead: "leave `quantize` out",
  },
} as const satisfies Record<string, Refusal>;
