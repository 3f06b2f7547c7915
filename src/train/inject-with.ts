import { tensor } from "../create.js";
import { attentionMask, type Batch, type BatchPlan } from "../data/batches.js";
import type { Device } from "../device.js";
import { inject, type EvaBatch, type InjectOptions, type InjectReport } from "../lora/index.js";
import { SpeechToText } from "../models/speech-to-text.js";
import type { PretrainedModel } from "../models/pretrained.js";
import { refused } from "../refusals/refusal.js";
import { TRAINING_REFUSALS } from "../refusals/training.js";
import type { Tensor } from "../tensor.js";

/**
 * Whether an adapter starts from the rows of its run: by EVA, unless it has data of its own.
 *
 * Throws `ERR_OPTION` where the rows are of speech.
 */
export function startsFromRows(
  model: PretrainedModel,
  { initLoraWeights, evaData }: Pick<InjectOptions, "initLoraWeights" | "evaData">,
): boolean {
  if (initLoraWeights !== "eva" || evaData !== undefined) return false;
  if (model instanceof SpeechToText) throw refused(TRAINING_REFUSALS.evaOfSpeech, "finetune");
  return true;
}

/** A batch of a run's rows as EVA takes it. */
export interface RowsOfEva {
  ids: Tensor;
  attentionMask: Tensor;
  labels?: Tensor;
}

/** A batch as EVA takes it; the tensors are whoever's `made` is. */
export function evaBatch(batch: Batch, device: Device, made: Tensor[]): RowsOfEva {
  const { ids, labels, shape } = batch;
  const of = (values: Int32Array): Tensor => {
    const one = tensor(values, { shape, device });
    made.push(one);
    return one;
  };
  // One label a row says nothing of its positions.
  const byPosition = labels.length === ids.length ? { labels: of(labels) } : {};
  return { ids: of(ids), attentionMask: of(attentionMask(batch)), ...byPosition };
}

/** Injects an adapter; one that starts from data takes that of the run, unless it has its own. */
export async function injectWith(
  model: PretrainedModel,
  adapter: InjectOptions,
  plan: BatchPlan,
): Promise<InjectReport> {
  if (!startsFromRows(model, adapter)) return inject(model, adapter);
  const made: Tensor[] = [];
  function* evaData(): Generator<EvaBatch> {
    for (let step = 0; step < plan.steps; step++)
      for (const batch of plan.rowsAt(step)) yield evaBatch(batch, model.device, made);
  }
  try {
    return await inject(model, { ...adapter, evaData: evaData() });
  } finally {
    for (const one of made) one.dispose();
  }
}
