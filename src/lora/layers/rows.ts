/** One adapter per row of the batch, set within one asynchronous context. */
import { AsyncLocalStorage } from "node:async_hooks";

import { LowrankError } from "../../errors.js";
import type { RandomState } from "../../tensor/random.js";

/** Adapter names, one per row of the batch; null for the base alone. */
export type AdapterPerRow = readonly (string | null)[];

/** The generators that the dropout masks of adapters are drawn from, by adapter name. */
export type AdapterGenerators = ReadonlyMap<string, RandomState>;

const inForce = new AsyncLocalStorage<AdapterPerRow>();
const generators = new AsyncLocalStorage<AdapterGenerators>();

/** Runs `fn`, in which every low-rank layer applies only the adapter `names[b]` to row b of its batch. */
export function runWithAdapterPerRow<T>(names: AdapterPerRow, fn: () => T): T {
  return inForce.run(names, fn);
}

export function findAdapterPerRow(): AdapterPerRow | undefined {
  return inForce.getStore();
}

/** Runs `fn`, in which each adapter draws the dropout masks of its rows from its own generator. */
export function runWithGenerators<T>(states: AdapterGenerators, fn: () => T): T {
  return generators.run(states, fn);
}

/** Returns an adapter's own generator; undefined for the generator of the run. */
export function findGenerator(name: string): RandomState | undefined {
  return generators.getStore()?.get(name);
}

/** Consecutive rows with the same adapter, or with none. */
export interface Run {
  name: string | null;
  start: number;
  count: number;
}

/**
 * Returns the runs of an input of `rows` rows, by position. Each row of the batch covers `rows / names.length` input rows.
 */
export function findRuns(names: AdapterPerRow, rows: number): Run[] {
  const each = rows / names.length;
  if (!Number.isInteger(each)) {
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `adapterPerRow: ${names.length} names do not fit an input of ${rows} rows`,
    );
  }
  const runs: Run[] = [];
  for (const [b, name] of names.entries()) {
    const last = runs.at(-1);
    if (last !== undefined && last.name === name) last.count += each;
    else runs.push({ name, start: b * each, count: each });
  }
  return runs;
}
