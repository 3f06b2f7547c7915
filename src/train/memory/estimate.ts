/** Estimates the memory of a `finetune` run without running it. */
import { LowrankError, throwIfAborted } from "../../errors.js";
import { locate } from "../../models/files/locate.js";
import { readMatmulPrecision } from "../../tensor/scope.js";
import { resolveClasses, resolveTemplate } from "../inherited.js";
import type { FinetuneOptions } from "../options.js";
import { closeFiles, createReader, readFiles } from "../prepare.js";
import { resolveResume, prepareResume } from "../resume.js";
import { prepareDevices } from "../replicas/devices.js";
import { sizeSteps } from "../replicas/shares.js";
import { checkKinds, parseSettings } from "../settings.js";
import { completeFromAdapter } from "../start-adapter.js";
import { listGiven } from "../changeable.js";
import type { Suggestion } from "./choices.js";
import type { HeldMemory } from "../held-memory.js";
import { type CountedDevice, type MemoryPlan, planMemory } from "./plan.js";
import { measureRate, computeSeconds } from "../rate.js";

/** The memory of a run on one of several devices; sizes are in bytes. */
export interface DeviceEstimate extends HeldMemory {
  /** The device: `cpu`, `gpu`, `gpu:1`. */
  device: string;
  /** Rows and tokens of the largest batch. */
  batch: [rows: number, length: number];
  /** The memory limit: `memory`, or the free memory. Undefined for a discrete GPU, whose free memory is unknown. */
  limit?: number | undefined;
}

/** The result of `estimate`; sizes are in bytes. `further` has the sizes on all devices but the first. */
export interface Estimate extends DeviceEstimate {
  /**
   * Approximate seconds per step of such batches: its arithmetic at three quarters of the rate of a product that is timed
   * now on the device, plus the host's recording time; of several devices, the slowest. Other work on the device makes
   * both longer.
   */
  secondsPerStep: number;
  /** The memory of each further device; absent for one device. */
  further?: DeviceEstimate[] | undefined;
  /** Whether the run fits on its devices; undefined without a limit. */
  fits: boolean | undefined;
  /** If the run does not fit: options of `finetune` that do, to replace the same ones. Absent if none were found. */
  suggestion?: Suggestion | undefined;
  /** The cost of each part of the suggestion, one sentence each. */
  costs?: string[] | undefined;
  /**
   * Options in the suggestion that were given with other values. `finetune` keeps given values in spite of `memory`, and
   * refuses the run. Absent if there are none.
   */
  given?: (keyof Suggestion)[] | undefined;
}

/**
 * Estimates the device memory of a `finetune` run by weights, adapters, optimizer and activations, and checks whether it
 * fits into `memory`, by default into the free memory. It reads no weights and computes only one product: the run's first
 * steps are recorded on a meta device. Data above 128 KiB is represented by its longest rows. A hub's model is downloaded
 * if the cache lacks it.
 *
 * Errors: the errors of `finetune` before its first step: `ERR_OPTION`, `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`,
 * `ERR_DATA_ROW` and the errors of `loadModel` and `lora.inject`; `ERR_OUT_OF_MEMORY` for a tensor that exceeds the
 * device's largest buffer; the signal's reason.
 */
export async function estimate(options: FinetuneOptions): Promise<Estimate> {
  checkKinds(options);
  throwIfAborted(options.signal);
  const origin = await resolveResume(options);
  const resumed = origin && (await prepareResume(origin, options));
  const completed = resumed?.options ?? completeFromAdapter(options);
  const requested = { ...parseSettings(completed), given: listGiven(options) };
  const settings = await prepareDevices(requested);
  const { model, revision, offline, signal } = settings;
  const quiet = { emit: () => {} };
  const template = resolveTemplate(settings, resumed, quiet);
  const files = await readFiles(settings, createReader(settings, quiet));
  try {
    const located =
      typeof model === "string" ? await locate(model, { revision, offline, signal }) : undefined;
    const labels = resolveClasses(files, located?.path ?? model, settings, resumed);
    const precision = settings.matmulPrecision ?? readMatmulPrecision();
    const planned = { settings, files, located, labels, template, precision };
    const plan = await planMemory({ ...planned, resumed: resumed !== undefined });
    if (plan === undefined) {
      const what =
        "the model was not loaded from files, and cannot be rebuilt from its configuration; give its folder";
      throw new LowrankError("ERR_UNSUPPORTED_MODEL", `estimate: ${what}`);
    }
    let slowest = 0;
    for (const [part, { device, cost }] of [plan, ...plan.further].entries()) {
      const rate = await measureRate(device, cost.product, precision);
      const { gradientAccumulation } = sizeSteps({ ...settings, part });
      slowest = Math.max(slowest, computeSeconds(cost, rate, gradientAccumulation));
    }
    return formatEstimate(plan, slowest);
  } finally {
    closeFiles(files);
  }
}

function formatDevice({ held, device, limit }: CountedDevice): DeviceEstimate {
  return { ...held, device, ...(limit !== undefined && { limit }) };
}

function formatEstimate({ fits, fitting, further, ...first }: MemoryPlan, secondsPerStep: number): Estimate {
  return {
    ...formatDevice(first),
    secondsPerStep,
    ...(further.length > 0 && { further: further.map(formatDevice) }),
    fits,
    ...(fitting !== undefined && { suggestion: fitting.changes, costs: fitting.costs }),
    ...(fitting !== undefined && fitting.given.length > 0 && { given: fitting.given }),
  };
}
