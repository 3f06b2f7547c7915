import { tensor } from "../create.js";
import { attentionMask, type BatchPlan } from "../data/batches.js";
import { inject, type EvaBatch, type InjectOptions, type InjectReport } from "../lora/index.js";
import { SpeechToText } from "../models/speech-to-text.js";
import type { PretrainedModel } from "../models/pretrained.js";
import { refused } from "../refusals/refusal.js";
import { TRAINING_REFUSALS } from "../refusals/training.js";
import type { Tensor } from "../tensor.js";

/** Throws `ERR_OPTION` for a model that EVA cannot start from a run's data. */
export function checkEva(model: PretrainedModel): void {
  if (model instanceof SpeechToText) throw refused(TRAINING_REFUSALS.evaOfSpeech, "finetune");
}

/** Injects an adapter; one that starts from data takes that of the run, unless it has its own. */
export async function injectWith(
  model: PretrainedModel,
  adapter: InjectOptions,
  plan: BatchPlan,
): Promise<InjectReport> {
  if (adapter.initLoraWeights !== "eva" || adapter.evaData !== undefined) return inject(model, adapter);
  checkEva(model);
  const made: Tensor[] = [];
  const of = (values: Int32Array, shape: readonly number[]): Tensor => {
    const one = tensor(values, { shape, device: model.device });
    made.push(one);
    return one;
  };
  function* evaData(): Generator<EvaBatch> {
    for (let step = 0; step < plan.steps; step++) {
      for (const batch of plan.rowsAt(step)) {
        const { ids, labels, shape } = batch;
        // One label a row says nothing of its positions.
        const byPosition = labels.length === ids.length ? { labels: of(labels, shape) } : {};
        yield { ids: of(ids, shape), attentionMask: of(attentionMask(batch), shape), ...byPosition };
      }
    }
  }
  try {
    return await inject(model, { ...adapter, evaData: evaData() });
  } finally {
    for (const one of made) one.dispose();
  }
}
