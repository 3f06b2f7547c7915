/**
 * Learning-rate schedules: factors of the optimizer's rate. They are transformers' ones, except that a warm-up starts at
 * 1/warmup and not at 0: with a rate of 0 the first step would change nothing.
 */
import { checkNumberThat, checkKnownOptions } from "../arguments/check.js";

/** The factor for step `step`, counted from 0. */
export type Schedule = (step: number) => number;

/** The options of a schedule, in steps. */
export interface ScheduleOptions {
  /** Steps in which the factor rises linearly from 1/warmup to 1; 0 by default. */
  warmup?: number | undefined;
  /** Steps of the whole run, including the warm-up. */
  total: number;
}

/** Rises over the warm-up, then falls linearly to 0 at the end. Throws `ERR_OPTION` for invalid numbers of steps. */
export function linear(options: ScheduleOptions): Schedule {
  return addWarmup("linear", options, (done, rest) => Math.max(0, 1 - done / rest));
}

/** Rises over the warm-up, then falls along half a cosine to 0 at the end. Throws `ERR_OPTION` for invalid numbers of steps. */
export function cosine(options: ScheduleOptions): Schedule {
  return addWarmup("cosine", options, (done, rest) =>
    Math.max(0, 0.5 * (1 + Math.cos((Math.PI * done) / rest))),
  );
}

/** Rises over the warm-up, then stays at 1. Throws `ERR_OPTION` for invalid numbers of steps. */
export function constant(options: Partial<ScheduleOptions> = {}): Schedule {
  const { warmup, total = warmup ?? 0 } = checkKnownOptions("schedule.constant", options, [
    "warmup",
    "total",
  ]);
  return addWarmup("constant", { warmup, total }, () => 1);
}

/** The warm-up, followed by `fall`, a function of the elapsed share of the remaining steps. */
function addWarmup(
  name: string,
  options: ScheduleOptions,
  fall: (done: number, rest: number) => number,
): Schedule {
  const where = `schedule.${name}`;
  const { warmup = 0, total } = checkKnownOptions(where, options, ["warmup", "total"]);
  const isCount = (n: number): boolean => n >= 0 && Number.isFinite(n);
  for (const [option, value] of Object.entries({ warmup, total }))
    checkNumberThat(where, option, value, isCount, "a number of steps");
  const rest = Math.max(1, total - warmup);
  // A warm-up that is no whole number must not exceed 1.
  return (step) => (step < warmup ? Math.min(1, (step + 1) / warmup) : fall(step - warmup, rest));
}
