/** The paper's adapters on GPT-2, and GPT-2 of a given size with random weights. */
import { GPT2LMHeadModel, lora, type Device } from "lowrank";

/** Layers, width and heads of the paper's sizes, and of a size that trains in seconds. */
export const SIZES = {
  tiny: { n_layer: 2, n_embd: 64, n_head: 2 },
  small: { n_layer: 12, n_embd: 768, n_head: 12 },
  medium: { n_layer: 24, n_embd: 1024, n_head: 16 },
  large: { n_layer: 36, n_embd: 1280, n_head: 20 },
};

/** Makes a model with normally distributed weights, as in transformers. */
export function drawnGPT2(
  device: Device,
  size: object = SIZES.small,
  initializer_range = 0.02,
): GPT2LMHeadModel {
  return GPT2LMHeadModel.fromConfig({ ...size, initializer_range }, { device });
}

/** Adapts queries and values of every layer and freezes the rest. Returns the number of trained weights. */
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
