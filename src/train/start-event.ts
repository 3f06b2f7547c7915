/** What a fine-tuning run says of itself before its first step. */
import type { BatchPlan } from "../data/batches.js";
import { trainedIn } from "../data/store.js";
import { chooseDevice } from "../device.js";
import type { InjectReport } from "../lora/index.js";
import type { PretrainedModel } from "../models/pretrained.js";
import { session } from "../native.js";
import type { MatmulPrecision } from "../scope.js";
import { isBlock } from "../tensor.js";
import type { StartEvent } from "./events.js";
import type { Prepared } from "./prepare.js";
import { warmupOf, type Settings } from "./settings.js";

export function startEvent(
  model: PretrainedModel,
  settings: Settings & { matmulPrecision: MatmulPrecision },
  { train, held, objective, reports }: Prepared,
  plan: BatchPlan,
  { adapted, trainable, total }: InjectReport,
  resumedFrom: number,
): StartEvent {
  const { device } = model;
  const dtypes = Object.values(model.stateDict()).map(({ dtype }) => dtype);
  const quantised = dtypes.find(isBlock);
  const why = typeof settings.model === "string" ? chooseDevice(settings.device).why : "the model is there";
  return {
    type: "start",
    model: model.source ?? "",
    family: (model.config as { modelType?: string | undefined }).modelType ?? "",
    parameters: total,
    trainable,
    adapted: adapted.length,
    targets: [...new Set(adapted.map((path) => path.split(".").at(-1) as string))],
    rank: settings.lora.r,
    alpha: settings.lora.loraAlpha,
    device,
    deviceName: session().deviceName(device),
    deviceReason: why,
    dtype: dtypes.find((dtype) => !isBlock(dtype)) ?? "f32",
    ...(quantised === undefined ? {} : { quantize: quantised }),
    matmulPrecision: settings.matmulPrecision,
    examples: train.length,
    evalExamples: held.length,
    tokens: trainedIn(train),
    data: reports,
    steps: plan.steps,
    stepsPerEpoch: plan.stepsPerEpoch,
    batchSize: settings.batchSize,
    gradientAccumulation: settings.gradientAccumulation,
    maxLength: objective.tokenisation.maxLength,
    ...(plan.sequences === undefined ? {} : { sequences: plan.sequences }),
    ...(objective.labels === undefined ? {} : { labels: objective.labels }),
    learningRate: settings.optimizer.lr,
    schedule: settings.schedule,
    warmup: warmupOf(settings.warmup, plan.steps),
    seed: settings.seed,
    output: settings.output,
    resumedFrom,
  };
}
