/** The parts that a run and its memory estimate share: the plan of batches, the adapter and the optimizer. */
import { BatchPlan } from "../data/batches.js";
import type { Examples } from "../data/store.js";
import { adapters, setAdapter, type InjectOptions } from "../lora/index.js";
import type { PretrainedModel } from "../models/pretrained.js";
import { type AdamWOptions, loraPlusGroups, type Optimizer, type ParameterGroup } from "../optim/index.js";
import { countElementBytes } from "../files/safetensors.js";
import type { Objective } from "./objective.js";
import { createOptimizer } from "./optimizer-types.js";
import type { Settings } from "./settings.js";

/** Returns the plan of batches: the rows that each step trains on. */
export function planBatches(settings: Settings, objective: Objective, train: Examples): BatchPlan {
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

/** Returns the options of a new run's adapter. */
export function resolveAdapterOptions(
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

/** Makes the run's adapter the only active and trained one of a model with several. */
export function trainOwn(model: PretrainedModel, { lora }: Settings): void {
  if (adapters(model).length > 1) setAdapter(model, lora.name ?? "default", { trainable: true });
}

/** Returns the groups of all trainable parameters, in the model's order, on which checkpoints rely. */
export function groupParameters(
  model: PretrainedModel,
  { optimizer, loraPlusRatio: ratio }: Pick<Settings, "optimizer" | "loraPlusRatio">,
): ParameterGroup<AdamWOptions>[] {
  if (ratio !== undefined) return loraPlusGroups(model, { lr: optimizer.lr, ratio });
  return [{ params: [...model.parameters()].filter((parameter) => parameter.requiresGrad) }];
}

/** Creates the optimizer over all trainable parameters. */
export function createRunOptimizer(model: PretrainedModel, settings: Settings): Optimizer {
  return createOptimizer(groupParameters(model, settings), settings.optimizer);
}

/** Returns the bytes of the final adapter's files and, with checkpoints, of one checkpoint: adapter and optimizer. */
export function computeSavedBytes(optimizer: Optimizer, checkpoints: boolean): number {
  const { groups, stateBytes } = optimizer;
  const trained = groups.flatMap(({ params }) => params);
  const adapter = trained.reduce((sum, { size, dtype }) => sum + size * countElementBytes(dtype), 0);
  return adapter + (checkpoints ? adapter + stateBytes : 0);
}
