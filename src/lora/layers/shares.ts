/** The adapters that apply in one forward of a layer, with their scaling and rows. */
import type { RandomState } from "../../tensor/random.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Adapter } from "./adapter.js";
import { findAdapterPerRow, findGenerator, findRuns } from "./rows.js";

/** The contribution of one adapter, over all rows or some runs of them. */
export interface Share {
  adapter: Adapter;
  /** The adapter's scaling times its weight in the sum. */
  scaling: number;
  /** Runs of consecutive input rows, where a row spans the last dimension; undefined for all rows. */
  runs?: readonly { start: number; count: number }[] | undefined;
  /** The generator of its dropout masks; by default the generator of the run. */
  generator?: RandomState | undefined;
}

/** The fields of a layer that shares are computed from. */
interface Adapted {
  readonly adapters: ReadonlyMap<string, Adapter>;
  readonly active: readonly { name: string; weight: number }[];
}

/** Returns the share, followed by the negated start if the adapter's start was subtracted from the weight. */
export function addStart(share: Share): Share[] {
  const { r, loraAlpha, scaling, start } = share.adapter;
  if (start === undefined) return [share];
  // The start stands for a part of the weight, so dropout does not apply to it.
  const adapter = { r, loraAlpha, scaling, loraDropout: 0, ...start };
  return [share, { ...share, adapter, scaling: -share.scaling }];
}

/** Returns the active adapters, over all rows. */
export function listActiveShares({ active, adapters }: Adapted): Share[] {
  return active.flatMap(({ name, weight }) => {
    const adapter = adapters.get(name) as Adapter;
    return addStart({ adapter, scaling: adapter.scaling * weight });
  });
}

/** Returns the shares over an input of `rows` rows: the active adapters, or the adapters set per row. */
export function listShares(layer: Adapted, rows: number): Share[] {
  const names = findAdapterPerRow();
  if (names === undefined) return listActiveShares(layer);
  const runs = findRuns(names, rows);
  return [...new Set(runs.map(({ name }) => name))].flatMap((name) => {
    const adapter = name === null ? undefined : layer.adapters.get(name);
    if (adapter === undefined) return [];
    const adapterRuns = runs.filter((run) => run.name === name);
    const coversAll = adapterRuns[0]?.count === rows;
    const generator = name === null ? undefined : findGenerator(name);
    return addStart({
      adapter,
      scaling: adapter.scaling,
      generator,
      ...(coversAll ? {} : { runs: adapterRuns }),
    });
  });
}

/**
 * Runs `forward` once with the active adapters; or with one adapter per row, once for each run of rows, and concatenates
 * the outputs.
 */
export function runByRows(
  layer: Adapted,
  x: Tensor,
  forward: (x: Tensor, shares: readonly Share[]) => Tensor,
): Tensor {
  const names = findAdapterPerRow();
  if (names === undefined) return forward(x, listActiveShares(layer));
  const runs = findRuns(names, x.shape[0] as number);
  const outputs = runs.map(({ name, start, count }) => {
    const adapter = name === null ? undefined : layer.adapters.get(name);
    const rowsOfRun = runs.length === 1 ? x : x.slice(0, start, start + count);
    return forward(rowsOfRun, adapter === undefined ? [] : addStart({ adapter, scaling: adapter.scaling }));
  });
  const [first, ...rest] = outputs as [Tensor, ...Tensor[]];
  return rest.length === 0 ? first : first.concat(rest, 0);
}

/** Returns bias + Σ scaling · loraBias, for shares over all rows. */
export function computeBias(bias: Tensor | null, shares: readonly Share[]): Tensor | null {
  return shares.reduce((sum: Tensor | null, { adapter: { loraBias }, scaling }) => {
    if (loraBias === undefined) return sum;
    const scaled = loraBias.mul(scaling);
    return sum === null ? scaled : sum.add(scaled);
  }, bias);
}
