import { tensor } from "../tensor/create.js";
import { buildAttentionMask, type Batch, type BatchPlan } from "../data/batches.js";
import type { Device } from "../device/device.js";
import { inject, type EvaBatch, type InjectOptions, type InjectReport } from "../lora/index.js";
import { SpeechToText } from "../models/speech-to-text.js";
import type { PretrainedModel } from "../models/pretrained.js";
import { createRefusal } from "../refusals/refusal.js";
import { TRAINING_REFUSALS } from "../refusals/training.js";
import type { Tensor } from "../tensor/tensor.js";

/**
 * Whether EVA initialises the adapter from the rows of the run, since no `evaData` is given.
 *
 * Throws `ERR_OPTION` for a speech model.
 */
export function startsFromRows(
  model: PretrainedModel,
  { initLoraWeights, evaData }: Pick<InjectOptions, "initLoraWeights" | "evaData">,
): boolean {
  if (initLoraWeights !== "eva" || evaData !== undefined) return false;
  if (model instanceof SpeechToText) throw createRefusal(TRAINING_REFUSALS.evaOfSpeech, "finetune");
  return true;
}

/** A batch of a run's rows in the format of EVA. */
export interface RowsOfEva {
  ids: Tensor;
  attentionMask: Tensor;
  labels?: Tensor;
}

/** Converts a batch to the format of EVA. Appends its tensors to `created`, for the caller to dispose. */
export function convertEvaBatch(batch: Batch, device: Device, created: Tensor[]): RowsOfEva {
  const { ids, labels, shape } = batch;
  const createInput = (values: Int32Array): Tensor => {
    const input = tensor(values, { shape, device });
    created.push(input);
    return input;
  };
  // A label per row says nothing about positions.
  const byPosition = labels.length === ids.length ? { labels: createInput(labels) } : {};
  return { ids: createInput(ids), attentionMask: createInput(buildAttentionMask(batch)), ...byPosition };
}

/** Injects an adapter. EVA without `evaData` uses the rows of the run. */
export async function injectWith(
  model: PretrainedModel,
  adapter: InjectOptions,
  plan: BatchPlan,
): Promise<InjectReport> {
  if (!startsFromRows(model, adapter)) return inject(model, adapter);
  const inputs: Tensor[] = [];
  function* evaData(): Generator<EvaBatch> {
    for (let step = 0; step < plan.steps; step++)
      for (const batch of plan.listRowsAt(step)) yield convertEvaBatch(batch, model.device, inputs);
  }
  try {
    return await inject(model, { ...adapter, evaData: evaData() });
  } finally {
    for (const created of inputs) created.dispose();
  }
}
