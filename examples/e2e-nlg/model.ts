/** The paper's adapters on GPT-2, and GPT-2 of a given size with weights drawn anew. */
import { lora, type Device } from "../../src/index.js";
import { gpt2Config } from "../../src/models/gpt2/config.js";
import { GPT2LMHeadModel } from "../../src/models/gpt2/model.js";
import { FreshWeights } from "../../src/models/weights.js";

/** Layers, width and heads of the sizes. */
export const SIZES = {
  small: { n_layer: 12, n_embd: 768, n_head: 12 },
  medium: { n_layer: 24, n_embd: 1024, n_head: 16 },
  large: { n_layer: 36, n_embd: 1280, n_head: 20 },
};

/** Weights are drawn from a normal distribution, as transformers does. */
export function drawnGPT2(device: Device, size: object = SIZES.small, deviation = 0.02): GPT2LMHeadModel {
  const config = gpt2Config({ model_type: "gpt2", ...size });
  return new GPT2LMHeadModel(config, new FreshWeights(device, deviation));
}

/** Adapts queries and values of every layer, and freezes the rest. Gives the number of weights that train. */
export function adapt(model: GPT2LMHeadModel): number {
  for (const { attn } of model.transformer.h) {
    attn.c_attn = lora.MergedLinear.fromBase(attn.c_attn, {
      r: 4,
      loraAlpha: 32,
      loraDropout: 0.1,
      enableLora: [true, false, true],
      fanInFanOut: true,
      mergeWeights: false,
    });
  }
  lora.markOnlyLoraAsTrainable(model);
  const trained = Object.values(lora.loraStateDict(model));
  return trained.reduce((sum, tensor) => sum + tensor.size, 0);
}
