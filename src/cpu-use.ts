/** How the engine uses the processor: how many threads, and at which priority. */
import { numberThat, oneOf, options as known } from "./argument.js";
import { call, native } from "./native.js";

/** The priority of the engine's threads among all that run on the machine. */
export type Priority = "normal" | "background";

export const PRIORITIES = ["normal", "background"] as const satisfies readonly Priority[];

/** How the engine may use the processor. No bit of a result depends on it. */
export interface CpuUse {
  /**
   * The most threads that compute at a time, from 1 to the number of cores (or `LOWRANK_THREADS`). Unless given, one for
   * each core, and in the background one less, so that one core stays free.
   */
  threads?: number | undefined;
  /**
   * `background` gives the engine's threads a lower priority than the programs that the user works with: a nice value of 10
   * on Linux, QOS_CLASS_UTILITY on macOS, THREAD_PRIORITY_BELOW_NORMAL on Windows. `normal` unless given. Work on a GPU has
   * no priority there; the threads that feed it have.
   */
  priority?: Priority | undefined;
}

/** What is in force of `CpuUse`. */
export interface CurrentCpuUse {
  /** The most threads that compute at a time. */
  threads: number;
  /** The priority of the engine's threads. */
  priority: Priority;
}

/** The threads that the cpu device has: one for each core unless `LOWRANK_THREADS` says otherwise. */
export function cpuThreads(): number {
  return call(() => native().cpuThreads());
}

/** Checks a number of threads. Throws `ERR_OPTION`. */
export function checkThreads(where: string, threads: unknown): number {
  const all = cpuThreads();
  const expected = `a whole number from 1 to ${all}, the threads of the cpu`;
  const holds = (count: number): boolean => Number.isSafeInteger(count) && count >= 1 && count <= all;
  return numberThat(where, "threads", threads, holds, expected);
}

/** Checks what is given of `threads` and `priority`. Throws `ERR_OPTION`. */
export function checkCpuUse(where: string, given: CpuUse | undefined): CpuUse {
  const { threads, priority } = known(where, given, ["threads", "priority"]);
  return {
    threads: threads === undefined ? undefined : checkThreads(where, threads),
    priority: priority === undefined ? undefined : oneOf(where, "priority", priority, PRIORITIES),
  };
}
