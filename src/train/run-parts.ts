/** What a run trains with, and what its estimate is made with: one plan of batches, one adapter, one optimizer. */
import { BatchPlan } from "../data/batches.js";
import type { Examples } from "../data/store.js";
import { adapters, setAdapter, type InjectOptions } from "../lora/index.js";
import type { PretrainedModel } from "../models/pretrained.js";
import { loraPlusGroups, type Optimizer } from "../optim/index.js";
import { elementBytes } from "../safetensors.js";
import type { Objective } from "./objective.js";
import { createOptimizer } from "./optimizer-types.js";
import type { Settings } from "./settings.js";

/** Which rows each step trains on. */
export function planOf(settings: Settings, objective: Objective, train: Examples): BatchPlan {
  const { batchSize, gradientAccumulation, seed, steps, epochs } = settings;
  const { padTokenId, maxLength } = objective.tokenisation;
  const packing = settings.packing ? { maxLength, ...objective.packing } : undefined;
  return new BatchPlan(train, {
    batchSize,
    gradientAccumulation,
    seed,
    padTokenId,
    steps,
    epochs,
    packing,
  });
}

/** The adapter that a new run begins with. */
export function adapterOptions(
  model: PretrainedModel,
  { lora }: Settings,
  { modulesToSave }: Objective,
): InjectOptions {
  return {
    ...lora,
    taskType: lora.taskType ?? model.taskType,
    modulesToSave: [...new Set([...(lora.modulesToSave ?? []), ...modulesToSave])],
  };
}

/** Lets the run's own adapter alone count and be trained, whatever others the model carries. */
export function trainOwn(model: PretrainedModel, { lora }: Settings): void {
  if (adapters(model).length > 1) setAdapter(model, lora.name ?? "default", { trainable: true });
}

/** Over what asks for gradients, in the model's order, which is that of the optimizer's state in a checkpoint. */
export function optimizerOf(
  model: PretrainedModel,
  { optimizer, loraPlusRatio: ratio }: Settings,
): Optimizer {
  if (ratio !== undefined)
    return createOptimizer(loraPlusGroups(model, { lr: optimizer.lr, ratio }), optimizer);
  return createOptimizer(
    [...model.parameters()].filter((parameter) => parameter.requiresGrad),
    optimizer,
  );
}

/** Bytes of the files of an adapter, and of a checkpoint where some are saved: the adapter again, and the optimizer. */
export function savedBytes(optimizer: Optimizer, checkpoints: boolean): number {
  const { groups, stateBytes } = optimizer;
  const trained = groups.flatMap(({ params }) => params);
  const adapter = trained.reduce((sum, { size, dtype }) => sum + size * elementBytes(dtype), 0);
  return adapter + (checkpoints ? adapter + stateBytes : 0);
}
