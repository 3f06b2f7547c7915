/** Trains many adapters over one base model, to compare their settings. */
import { Run } from "../run.js";
import type { SweepEvent, SweepResult } from "./events.js";
import type { SweepOptions } from "./options.js";

/** A running sweep: an iterator over its events, and a promise of its result. */
export type SweepRun = Run<SweepResult, SweepEvent>;

/**
 * Trains an adapter for each combination of the values in `space`, and ranks the adapters by their held-out losses. Starts
 * at once. The adapters that fit into memory train side by side: each batch of the base model contains the rows of all,
 * and each adapter has its own optimizer, schedule, clipping and order of rows. An adapter equals the adapter that
 * `finetune` trains with the same options, apart from rounding.
 *
 * The output folder gets a folder for each trial, as `finetune` writes it, and `sweep.json` with all settings and losses.
 * `stop()` finishes the step and saves the trials that train. The same sweep in the same folder continues with the trials
 * that are not finished.
 *
 * Errors (they reject `result`): `ERR_OPTION`, also for a space that is empty; the errors of `finetune` and of
 * `lora.inject` for invalid input; `ERR_OUTPUT_EXISTS` for a folder with another sweep or with other files; `ERR_WRITE`;
 * `ERR_OUT_OF_MEMORY`; the signal's reason. A trial whose loss is not finite fails alone.
 */
export function sweep(options: SweepOptions): SweepRun {
  return new Run<SweepResult, SweepEvent>(async (context) =>
    (await import("./sweeping.js")).runSweep(options, context),
  );
}
