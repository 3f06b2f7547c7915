/** Builds the start event of a fine-tuning run. */
import type { BatchPlan } from "../../data/batches.js";
import { countTrained } from "../../data/store.js";
import { chooseDevice } from "../../device/device.js";
import type { InjectReport } from "../../lora/index.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import { session } from "../../native/binding.js";
import { cpuUse, type MatmulPrecision } from "../../tensor/scope.js";
import { isBlock, type Tensor } from "../../tensor/tensor.js";
import type { PlannedMemory, StartEvent } from "../events.js";
import type { HeldMemory } from "../held-memory.js";
import type { PeakMemory } from "../memory/dry-run.js";
import type { Fitting, MemoryPlan } from "../memory/plan.js";
import type { Prepared } from "../prepare.js";
import { apportion, findFirstPart, listShares } from "../replicas/shares.js";
import { countWarmupSteps, type Settings } from "../settings.js";

/** The parts of a run that the event describes. */
interface StartedRun {
  model: PretrainedModel;
  settings: Settings & { matmulPrecision: MatmulPrecision };
  prepared: Prepared;
  memory: PlannedMemory | undefined;
  /** The machine and the devices of each rank. */
  places?: readonly { host: string; pid: number; devices: readonly string[] }[] | undefined;
}

export function createStartEvent(
  { model, settings, prepared: { train, held, objective, reports }, memory, places }: StartedRun,
  plan: BatchPlan,
  { adapted, trainable, total }: InjectReport,
  resumedFrom: number,
): StartEvent {
  const { device } = model;
  const tensors = Object.values(model.stateDict());
  const why =
    typeof settings.model === "string" ? chooseDevice(settings.device).why : "the model was loaded on it";
  return {
    type: "start",
    model: model.source ?? "",
    family: (model.config as { modelType?: string | undefined }).modelType ?? "",
    parameters: total,
    trainable,
    adapted: adapted.length,
    targets: [...new Set(adapted.map((path) => path.split(".").at(-1) as string))],
    ...(settings.adapter !== undefined && { adapter: settings.adapter }),
    rank: settings.lora.r,
    alpha: settings.lora.loraAlpha,
    device,
    deviceName: session().deviceName(device),
    deviceReason: why,
    ...describeDevices(settings),
    ...(places !== undefined && { ranks: countRows(settings, places) }),
    ...(device === "cpu" ? cpuUse() : { priority: cpuUse().priority }),
    dtype: tensors.find(({ dtype }) => !isBlock(dtype))?.dtype ?? "f32",
    ...listBlockFormats(tensors),
    matmulPrecision: settings.matmulPrecision,
    examples: train.length,
    evalExamples: held.length,
    tokens: countTrained(train),
    data: reports,
    steps: plan.steps,
    stepsPerEpoch: plan.stepsPerEpoch,
    batchSize: settings.batchSize,
    gradientAccumulation: settings.gradientAccumulation,
    maxLength: objective.tokenisation.maxLength,
    ...(plan.sequences === undefined ? {} : { sequences: plan.sequences }),
    ...(objective.labels === undefined ? {} : { labels: objective.labels }),
    optimizer: settings.optimizer.type,
    learningRate: settings.optimizer.lr,
    schedule: settings.schedule,
    warmup: countWarmupSteps(settings.warmup, plan.steps),
    seed: settings.seed,
    output: settings.output,
    ...(memory !== undefined && { memory }),
    resumedFrom,
  };
}

/** Returns the places of the ranks, each with its rows of a full step. */
function countRows(
  settings: Settings,
  places: readonly { host: string; pid: number; devices: readonly string[] }[],
): NonNullable<StartEvent["ranks"]> {
  const { batchSize, gradientAccumulation, devices } = settings;
  const counts = apportion(batchSize * gradientAccumulation, listShares(settings));
  return places.map((place, rank) => {
    const rankCounts = counts.slice(rank * devices.length, (rank + 1) * devices.length);
    return { ...place, rows: rankCounts.reduce((sum, rows) => sum + rows, 0) };
  });
}

/** Returns each of several devices with its rows of a full step. */
function describeDevices({ devices, deviceShares, batchSize, gradientAccumulation, ranks }: Settings): {
  devices?: StartEvent["devices"];
} {
  if (devices.length === 1 || deviceShares === undefined) return {};
  const all = listShares({ ranks, devices, deviceShares });
  const counts = apportion(batchSize * gradientAccumulation, all).slice(findFirstPart({ ranks, devices }));
  return {
    devices: devices.map((device, i) => ({
      device,
      name: session().deviceName(device),
      rows: counts[i] as number,
    })),
  };
}

/** Returns the memory plan for the start event, including the options that were changed to make the run fit. */
export function reportPlan(
  { held: firstHeld, limit, further: others }: MemoryPlan,
  chosen: Fitting | undefined,
): PlannedMemory {
  const further = (chosen?.further ?? others).map(({ device, held }) => ({ device, ...omitBatch(held) }));
  return {
    ...omitBatch(chosen?.held ?? firstHeld),
    ...(limit !== undefined && { limit }),
    ...(further.length > 0 && { further }),
    chosen: chosen?.costs ?? [],
  };
}

function omitBatch(peak: PeakMemory): HeldMemory {
  const { batch: _, ...memory } = peak;
  return memory;
}

/** Returns the block formats of the weights, the one with the most values first. */
function listBlockFormats(tensors: readonly Tensor[]): { quantize?: string } {
  const counts = new Map<string, number>();
  for (const { dtype, size } of tensors)
    if (isBlock(dtype)) counts.set(dtype, (counts.get(dtype) ?? 0) + size);
  if (counts.size === 0) return {};
  const types = [...counts].sort(([, a], [, b]) => b - a).map(([type]) => type);
  return { quantize: types.join(", ") };
}
