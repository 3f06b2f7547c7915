/** Copies a loaded model's structure to a meta device. */
import { existsSync } from "node:fs";

import type { Device } from "../../device/device.js";
import { LowrankError } from "../../errors.js";
import { isGguf } from "../../gguf/read.js";
import { adaptLike } from "../../lora/inject/alike.js";
import { isBlock, type FloatDType } from "../../tensor/tensor.js";
import { CausalLM } from "../causal-lm.js";
import { SequenceClassifier } from "../classifier.js";
import type { Task } from "../family.js";
import { loadLocated, type LocatedOptions } from "./load.js";
import type { PretrainedModel } from "../pretrained.js";
import type { Quantization } from "../quantization.js";
import { SpeechToText } from "../speech-to-text.js";

type Made = {
  fromConfig?: (config: object, options: { device: Device; dtype: FloatDType }) => PretrainedModel;
};

/**
 * Builds the same model without values, with adapters of the same shapes: from the files that it was loaded from, with
 * the same storage, or else from its configuration. Returns undefined where neither works.
 */
export async function buildLikeness(
  model: PretrainedModel,
  device: Exclude<Device, "auto">,
): Promise<PretrainedModel | undefined> {
  const path = model.folder ?? model.source;
  const stored = Object.values(model.stateDict()).filter(({ shape }) => shape.length > 1);
  // The largest tensors are the model's weights; adapters are smaller.
  stored.sort((a, b) => b.size - a.size);
  const dtype = stored.find((tensor) => !isBlock(tensor.dtype))?.dtype as FloatDType | undefined;
  let likeness: PretrainedModel | undefined;
  if (path !== undefined && existsSync(path)) {
    const block = stored.find((tensor) => isBlock(tensor.dtype))?.dtype as Quantization | undefined;
    const file = isGguf(path);
    const options: LocatedOptions = {
      device,
      tokenizer: model.tokenizer,
      onNotice: () => {},
      ...readTask(model),
      // Tensors stored in blocks in a GGUF file stay in blocks, so no dtype is passed.
      ...(dtype !== undefined && !(file && block !== undefined) && { dtype }),
      ...(block !== undefined && !file && { quantize: block }),
    };
    likeness = await loadLocated({ path, source: path, revision: undefined }, options);
  } else {
    likeness = buildFromConfig(model, { device, dtype: dtype ?? "f32" });
  }
  if (likeness === undefined) return undefined;
  likeness.tokenizer = model.tokenizer;
  try {
    adaptLike(model, likeness);
  } catch (error) {
    likeness.dispose();
    throw error;
  }
  return likeness;
}

function buildFromConfig(
  model: PretrainedModel,
  options: { device: Device; dtype: FloatDType },
): PretrainedModel | undefined {
  try {
    return (model.constructor as Made).fromConfig?.(model.toHubConfig(), options);
  } catch (error) {
    if (!(error instanceof LowrankError)) throw error;
    return undefined;
  }
}

function readTask(model: PretrainedModel): { task?: Task; numLabels?: number } {
  if (model instanceof CausalLM) return { task: "causal-lm" };
  if (model instanceof SpeechToText) return { task: "speech-to-text" };
  if (!(model instanceof SequenceClassifier)) return {};
  return { task: "sequence-classification", numLabels: model.config.labels.length };
}
