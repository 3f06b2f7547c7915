/** What checkpoints of `finetune` and of a `Trainer` have in common: their names, and how a run continues from them. */
import { existsSync } from "node:fs";

import type { RandomState } from "../../tensor/random.js";

/** Returns the usual name of the checkpoint after `step` steps. */
export function nameCheckpoint(step: number): string {
  return `checkpoint-${step}`;
}

/** Whether a value from a file is the state of a random generator. */
export function isRandomState(value: unknown): value is RandomState {
  const { seed, draws } = (value ?? {}) as Partial<RandomState>;
  return Number.isSafeInteger(seed) && Number.isSafeInteger(draws);
}

/** Returns the reason why nothing can be resumed from a folder without a checkpoint. */
export function explainMissing(folder: string): string {
  const what = existsSync(folder) ? "checkpoint" : "such folder";
  return `there is no ${what} to resume from`;
}

/** Returns the message for a run that continues from a bad checkpoint, or from `good` instead of it. */
export function describeDivergence(bad: string, good?: string): string {
  const instead = good === undefined ? "" : `; the run continues from ${good}, the last good checkpoint`;
  return `resume: training had diverged at ${bad}${instead}`;
}
