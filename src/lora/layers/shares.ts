/** What counts in one forward of a layer: which adapters, how much, over which rows. */
import type { Tensor } from "../../tensor.js";
import type { Adapter } from "./adapter.js";
import { adapterPerRow, runsOf } from "./rows.js";

/** What one adapter adds, over all rows or some runs of them. */
export interface Share {
  adapter: Adapter;
  /** The adapter's scaling times the weight that it counts with. */
  scaling: number;
  /** Neighbouring rows of the input, its last dimension apart; all without. */
  runs?: readonly { start: number; count: number }[] | undefined;
}

/** What a share is taken from. */
interface Adapted {
  readonly adapters: ReadonlyMap<string, Adapter>;
  readonly active: readonly { name: string; weight: number }[];
}

/** A share, and with it, where the adapter's start was taken out of the weight, the start with its sign turned. */
export function withStart(share: Share): Share[] {
  const { r, loraAlpha, scaling, start } = share.adapter;
  if (start === undefined) return [share];
  // Nothing is dropped of what stands for the weight.
  const adapter = { r, loraAlpha, scaling, loraDropout: 0, ...start };
  return [share, { ...share, adapter, scaling: -share.scaling }];
}

/** The active adapters, over all rows. */
export function activeShares({ active, adapters }: Adapted): Share[] {
  return active.flatMap(({ name, weight }) => {
    const adapter = adapters.get(name) as Adapter;
    return withStart({ adapter, scaling: adapter.scaling * weight });
  });
}

/** What counts over an input of `rows` rows: the active adapters, or those in force row by row. */
export function sharesOf(layer: Adapted, rows: number): Share[] {
  const names = adapterPerRow();
  if (names === undefined) return activeShares(layer);
  const runs = runsOf(names, rows);
  return [...new Set(runs.map(({ name }) => name))].flatMap((name) => {
    const adapter = name === null ? undefined : layer.adapters.get(name);
    if (adapter === undefined) return [];
    const own = runs.filter((run) => run.name === name);
    const whole = own[0]?.count === rows;
    return withStart({ adapter, scaling: adapter.scaling, ...(whole ? {} : { runs: own }) });
  });
}

/**
 * Runs `forward` with the adapters that count over all of its input: once for the active ones, or
 * for each run of rows of one adapter on those rows, whose outputs are joined again.
 */
export function byRows(
  layer: Adapted,
  x: Tensor,
  forward: (x: Tensor, shares: readonly Share[]) => Tensor,
): Tensor {
  const names = adapterPerRow();
  if (names === undefined) return forward(x, activeShares(layer));
  const runs = runsOf(names, x.shape[0] as number);
  const outputs = runs.map(({ name, start, count }) => {
    const adapter = name === null ? undefined : layer.adapters.get(name);
    const own = runs.length === 1 ? x : x.slice(0, start, start + count);
    return forward(own, adapter === undefined ? [] : withStart({ adapter, scaling: adapter.scaling }));
  });
  const [first, ...rest] = outputs as [Tensor, ...Tensor[]];
  return rest.length === 0 ? first : first.concat(rest, 0);
}

/** bias + Σ scaling · (the bias of the low-rank product), for shares over all rows. */
export function biasOf(bias: Tensor | null, shares: readonly Share[]): Tensor | null {
  return shares.reduce((sum: Tensor | null, { adapter: { loraBias }, scaling }) => {
    if (loraBias === undefined) return sum;
    const scaled = loraBias.mul(scaling);
    return sum === null ? scaled : sum.add(scaled);
  }, bias);
}
