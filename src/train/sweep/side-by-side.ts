/**
 * Records the batches of several runs together. Each run is a member that submits its batches; the work is recorded once
 * every member has submitted one, so that the base model runs once for all.
 */
import type { Batch } from "../../data/batches.js";
import { findGenerator, type RandomState } from "../../tensor/random.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Measured, Objective } from "../objective.js";
import { measureJointly, recordJointly, type AdapterRows, type TrainedRows } from "./joint.js";

interface Submitted<Rows extends AdapterRows, Result> {
  rows: Rows;
  resolve: (result: Result) => void;
  reject: (error: unknown) => void;
}

export interface SideBySideOptions {
  objective: Objective;
  /** Returns a key of a batch: only batches with equal keys are recorded together. */
  divide: (batch: Batch) => string;
  /** Awaited before each recording. */
  between?: (() => Promise<void>) | undefined;
}

export class SideBySide {
  readonly #options: SideBySideOptions;
  readonly #members = new Set<string>();
  /** Members that wait for something else than a recording. */
  readonly #away = new Set<string>();
  readonly #training = new Map<string, Submitted<TrainedRows, Tensor>>();
  readonly #measuring = new Map<string, Submitted<AdapterRows, Measured>>();
  #scheduled = false;
  #turn: Promise<void> = Promise.resolve();

  constructor(options: SideBySideOptions) {
    this.#options = options;
  }

  join(name: string): void {
    this.#members.add(name);
  }

  /** Removes a member that has ended. */
  leave(name: string): void {
    this.#members.delete(name);
    this.#away.delete(name);
    this.#schedule();
  }

  /** Waits until no other member has a turn, and returns a function that ends this one. Further calls of it are harmless. */
  async takeTurn(): Promise<() => void> {
    let end = (): void => {};
    const before = this.#turn;
    this.#turn = new Promise((resolve) => (end = resolve));
    await before;
    return end;
  }

  /** Runs `work`, for which the other members do not wait. */
  async runApart<T>(name: string, work: () => Promise<T>): Promise<T> {
    this.#away.add(name);
    this.#schedule();
    try {
      return await work();
    } finally {
      this.#away.delete(name);
    }
  }

  /** Returns the loss of a batch times `scale`, after forward and backward were recorded. */
  record(name: string, batch: Batch, scale: number): Promise<Tensor> {
    const generator: RandomState = findGenerator();
    return new Promise((resolve, reject) => {
      this.#training.set(name, { rows: { name, batch, scale, generator }, resolve, reject });
      this.#schedule();
    });
  }

  /** Measures a batch in evaluation mode. */
  measure(name: string, batch: Batch): Promise<Measured> {
    return new Promise((resolve, reject) => {
      this.#measuring.set(name, { rows: { name, batch }, resolve, reject });
      this.#schedule();
    });
  }

  get #complete(): boolean {
    const waiting = this.#training.size + this.#measuring.size;
    const present = [...this.#members].filter((name) => !this.#away.has(name)).length;
    return waiting > 0 && waiting >= present;
  }

  /** Records in a later turn of the event loop, in which signals and timers run too. */
  #schedule(): void {
    if (this.#scheduled || !this.#complete) return;
    this.#scheduled = true;
    setImmediate(() => void this.#recordAll());
  }

  async #recordAll(): Promise<void> {
    try {
      await this.#options.between?.();
    } finally {
      this.#scheduled = false;
    }
    // A member may have joined again meanwhile.
    if (!this.#complete) return;
    const { objective, divide } = this.#options;
    const take = <Rows extends AdapterRows, Result>(
      submitted: Map<string, Submitted<Rows, Result>>,
      work: (objective: Objective, parts: Rows[]) => Result[],
    ): void => {
      const all = [...submitted.values()];
      submitted.clear();
      for (const group of groupBy(all, ({ rows }) => divide(rows.batch))) {
        try {
          const results = work(
            objective,
            group.map(({ rows }) => rows),
          );
          for (const [i, { resolve }] of group.entries()) resolve(results[i] as Result);
        } catch (error) {
          for (const { reject } of group) reject(error);
        }
      }
    };
    take(this.#training, recordJointly);
    take(this.#measuring, measureJointly);
  }
}

/** Returns the values in groups of equal keys, in the order of their first values. */
export function groupBy<T>(values: readonly T[], key: (value: T) => string): T[][] {
  const groups = new Map<string, T[]>();
  for (const value of values) {
    const members = groups.get(key(value));
    if (members === undefined) groups.set(key(value), [value]);
    else members.push(value);
  }
  return [...groups.values()];
}
