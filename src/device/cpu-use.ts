/** The number and priority of the engine's threads. */
import { checkNumberThat, checkChoice, checkKnownOptions } from "../arguments/check.js";
import { call, native } from "../native/binding.js";

/** The priority of the engine's threads on this machine. */
export type Priority = "normal" | "background";

export const PRIORITIES = ["normal", "background"] as const satisfies readonly Priority[];

/** How the engine may use the processor. Results are bit-identical for all values. */
export interface CpuUse {
  /**
   * The maximum number of computing threads, from 1 to the number of cores (or `LOWRANK_THREADS`). Default: one per core;
   * with priority `background` one less, to leave a core free.
   */
  threads?: number | undefined;
  /**
   * `background` gives the engine's threads a lower priority than interactive programs: a nice value of 10 on Linux,
   * QOS_CLASS_UTILITY on macOS, THREAD_PRIORITY_BELOW_NORMAL on Windows. It also applies to threads that feed a GPU, but not
   * to the GPU's work. Default: `normal`.
   */
  priority?: Priority | undefined;
}

/** The current settings of `CpuUse`. */
export interface CurrentCpuUse {
  /** The maximum number of computing threads. */
  threads: number;
  /** The priority of the engine's threads. */
  priority: Priority;
}

/** Returns the number of threads of the cpu device: one per core, or `LOWRANK_THREADS`. */
export function countCpuThreads(): number {
  return call(() => native().cpuThreads());
}

/** Validates a number of threads. Throws `ERR_OPTION`. */
export function checkThreads(where: string, threads: unknown): number {
  const all = countCpuThreads();
  const expected = `a whole number from 1 to ${all}, the threads of the cpu`;
  const isValid = (count: number): boolean => Number.isSafeInteger(count) && count >= 1 && count <= all;
  return checkNumberThat(where, "threads", threads, isValid, expected);
}

/** Validates `threads` and `priority`. Throws `ERR_OPTION`. */
export function checkCpuUse(where: string, given: CpuUse | undefined): CpuUse {
  const { threads, priority } = checkKnownOptions(where, given, ["threads", "priority"]);
  return {
    threads: threads === undefined ? undefined : checkThreads(where, threads),
    priority: priority === undefined ? undefined : checkChoice(where, "priority", priority, PRIORITIES),
  };
}
