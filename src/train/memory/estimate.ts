/** What a run of `finetune` will hold of its device, told without running it. */
import { LowrankError, throwIfAborted } from "../../errors.js";
import { locate } from "../../models/locate.js";
import { matmulPrecision } from "../../scope.js";
import { checkModelDevice } from "../device-check.js";
import { classesOfRun, templateOf } from "../inherited.js";
import type { FinetuneOptions } from "../options.js";
import { closeFiles, readFiles } from "../prepare.js";
import { originOf, resumedFrom } from "../resume.js";
import { checkKinds, settingsOf } from "../settings.js";
import { withAdapter } from "../start-adapter.js";
import { givenIn } from "./changeable.js";
import type { Suggestion } from "./choices.js";
import type { HeldMemory } from "./held.js";
import { type MemoryPlan, planMemory } from "./plan.js";
import { measuredRate, secondsOfStep } from "./rate.js";

/** What `estimate` gives; sizes are in bytes. */
export interface Estimate extends HeldMemory {
  /** Which device it is for: `cpu`, `gpu`, `gpu:1`. */
  device: string;
  /** Rows and tokens of the largest batch. */
  batch: [rows: number, length: number];
  /**
   * Seconds of a step of such batches, about: its arithmetic at three quarters of the rate of a product that was timed
   * now on the device, and what the host takes to record it. What else has the device makes both longer.
   */
  secondsPerStep: number;
  /** What the run may hold: `memory`, or what is free now; undefined of a GPU with memory of its own, which doesn't tell. */
  limit?: number | undefined;
  /** Whether it fits; undefined where nothing says what there is. */
  fits: boolean | undefined;
  /** Where it does not fit: options that do, for `finetune` in the place of the same. Left out where none were found. */
  suggestion?: Suggestion | undefined;
  /** What each part of the suggestion costs, a sentence each. */
  costs?: string[] | undefined;
  /**
   * Options of the suggestion that were given otherwise. `finetune` keeps what was given, whatever `memory` says, and
   * refuses the run. Left out where there are none.
   */
  given?: (keyof Suggestion)[] | undefined;
}

/**
 * Says what a run of `finetune` with these options would hold of its device, by weights, adapters, optimizer and
 * activations, and whether that fits into `memory`, or unless that is given into what is free. No weight is read and
 * nothing but a product is computed: the run's first steps are recorded on a meta device, and data of more than 128 KiB is judged by its
 * longest rows. A hub's model is fetched unless the cache has it.
 *
 * Errors: those that `finetune` would end with before its first step: `ERR_OPTION`, `ERR_FILE_NOT_FOUND`,
 * `ERR_FILE_FORMAT`, `ERR_DATA_ROW` and those of `loadModel` and `lora.inject`; `ERR_OUT_OF_MEMORY` for a tensor that no
 * buffer of the device can hold; the signal's reason.
 */
export async function estimate(options: FinetuneOptions): Promise<Estimate> {
  checkKinds(options);
  throwIfAborted(options.signal);
  const origin = await originOf(options);
  const resumed = origin && (await resumedFrom(origin, options));
  const completed = resumed?.options ?? withAdapter(options);
  const settings = { ...settingsOf(completed), given: givenIn(options) };
  await checkModelDevice(settings);
  const { model, revision, offline, signal } = settings;
  const quiet = { emit: () => {} };
  const template = templateOf(settings, resumed, quiet);
  const files = await readFiles(settings, quiet);
  try {
    const located =
      typeof model === "string" ? await locate(model, { revision, offline, signal }) : undefined;
    const labels = classesOfRun(files, located?.path ?? model, settings, resumed);
    const precision = settings.matmulPrecision ?? matmulPrecision();
    const planned = { settings, files, located, labels, template, precision };
    const plan = await planMemory({ ...planned, resumed: resumed !== undefined });
    if (plan === undefined) {
      const what = "the model came from no files, and its configuration makes none; give its folder";
      throw new LowrankError("ERR_UNSUPPORTED_MODEL", `estimate: ${what}`);
    }
    const rate = await measuredRate(plan.device, plan.cost.product, precision);
    return estimateOf(plan, secondsOfStep(plan.cost, rate, settings.gradientAccumulation));
  } finally {
    closeFiles(files);
  }
}

function estimateOf({ held, device, limit, fits, fitting }: MemoryPlan, secondsPerStep: number): Estimate {
  return {
    ...held,
    device,
    secondsPerStep,
    ...(limit !== undefined && { limit }),
    fits,
    ...(fitting !== undefined && { suggestion: fitting.changes, costs: fitting.costs }),
    ...(fitting !== undefined && fitting.given.length > 0 && { given: fitting.given }),
  };
}
