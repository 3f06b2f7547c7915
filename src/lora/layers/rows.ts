/** One adapter per row of the batch: what is in force follows the asynchronous call. */
import { AsyncLocalStorage } from "node:async_hooks";

import { LowrankError } from "../../errors.js";

/** Names of adapters, one a row of the batch; null for the base alone. */
export type AdapterPerRow = readonly (string | null)[];

const inForce = new AsyncLocalStorage<AdapterPerRow>();

/** Runs `fn`, in which every low-rank layer applies to row b of its batch the adapter `names[b]` alone. */
export function withAdapterPerRow<T>(names: AdapterPerRow, fn: () => T): T {
  return inForce.run(names, fn);
}

export function adapterPerRow(): AdapterPerRow | undefined {
  return inForce.getStore();
}

/** Neighbouring rows of one adapter, or of none. */
export interface Run {
  name: string | null;
  start: number;
  count: number;
}

/**
 * The runs of an input of `rows` rows, in order: each row of the batch is as many of these as there
 * are rows to a batch.
 */
export function runsOf(names: AdapterPerRow, rows: number): Run[] {
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
