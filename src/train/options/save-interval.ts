/** The interval between checkpoints: steps, time, or never. */
import { formatValue } from "../../arguments/check.js";
import { LowrankError } from "../../errors.js";
import { optionName } from "../../arguments/option-name.js";

/** The parsed form of `saveEvery`; undefined stands for never. */
export type SaveInterval = { steps: number } | { seconds: number } | undefined;

/** The default of `saveEvery`. */
export const DEFAULT_SAVE_EVERY = "10m";

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600 };

/** Parses a value of `saveEvery`. Throws `ERR_OPTION`. */
export function parseSaveInterval(value: number | string): SaveInterval {
  if (value === 0 || value === "never") return undefined;
  if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return { steps: value };
  const seconds = typeof value === "string" ? parseDuration(value) : undefined;
  if (seconds !== undefined) return { seconds };
  throw new LowrankError(
    "ERR_OPTION",
    `${optionName("saveEvery")} must be a number of steps, a time such as "10m" (s, m or h), or "never", got ${formatValue(value)}`,
  );
}

/** Returns the seconds in `90s`, `10m` or `1.5h`; undefined for any other text and for a time of 0. */
export function parseDuration(text: string): number | undefined {
  const [, digits, unit] = /^(\d+(?:\.\d+)?) ?([smh])$/.exec(text.trim()) ?? [];
  const seconds = Number(digits) * (UNITS[unit ?? ""] as number);
  return Number.isFinite(seconds) && seconds > 0 ? seconds : undefined;
}

/**
 * Decides when a checkpoint is due, so that a kill at any moment loses less than `seconds` of training. A checkpoint can
 * only be saved between two steps and takes time itself, so it is due as soon as waiting for the next opportunity would
 * exceed the limit. A run that ends before the limit saves nothing by time.
 */
export class SaveTimer {
  readonly #limit: number;
  readonly #clock: () => number;
  /** Total milliseconds of pauses. */
  #paused = 0;
  /** The time up to which training is saved. */
  #safe: number;
  /** The time of the last opportunity to save. */
  #last: number;
  /** Milliseconds of the last step. */
  #step = 0;
  /** Milliseconds of the last evaluation. */
  #evaluation = 0;
  /** Milliseconds of the last save. */
  #save: number;

  /** `now` returns milliseconds on any monotonic clock. */
  constructor(seconds: number, now: () => number) {
    this.#limit = seconds * 1000;
    // The estimate until a save has been measured: one sixtieth of the limit, ten seconds of ten minutes.
    this.#save = this.#limit / 60;
    this.#clock = now;
    this.#safe = this.#last = this.#readClock();
  }

  /** The clock without pauses, which train nothing that a kill could lose. */
  #readClock(): number {
    return this.#clock() - this.#paused;
  }

  /** Whether to save after this step. `evaluations` is the number of evaluations before the next opportunity to save. */
  isDue(evaluations: number): boolean {
    const now = this.#readClock();
    this.#step = now - this.#last;
    this.#last = now;
    const next = now + this.#step + evaluations * this.#evaluation + this.#save;
    return next - this.#safe >= this.#limit;
  }

  /** Runs an evaluation and measures its time separately from the steps. */
  async timeEvaluation<T>(work: () => Promise<T>): Promise<T> {
    const began = this.#readClock();
    try {
      return await work();
    } finally {
      this.#evaluation = this.#readClock() - began;
      this.#last += this.#evaluation;
    }
  }

  /** Waits for the end of a pause; also within an evaluation. */
  async excludePause(wait: () => Promise<void>): Promise<void> {
    const began = this.#clock();
    await wait();
    this.#paused += this.#clock() - began;
  }

  /** Saves a checkpoint by `work`, which covers the training up to its start. */
  async timeSave<T>(work: () => Promise<T>): Promise<T> {
    const began = this.#readClock();
    const result = await work();
    this.#safe = began;
    this.#save = this.#readClock() - began;
    this.#last = this.#readClock();
    return result;
  }
}
