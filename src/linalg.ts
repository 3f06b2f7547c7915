/** Factorisations of matrices, in f64 and away from the event loop. */
import { call, native, settled } from "./native.js";
import { nextDropout } from "./random.js";
import { cpuUse, enterCpuUse } from "./scope.js";

/** A matrix on the host, by rows. */
export interface Matrix {
  values: Float32Array;
  rows: number;
  columns: number;
}

/** A ≈ U·diag(s)·Vᵀ: U [rows, k], s [k] falling, Vᵀ [k, columns]. */
export interface Svd {
  u: Float64Array;
  s: Float64Array;
  vt: Float64Array;
}

/** The `rank` largest singular values with their vectors. Throws `ERR_NOT_FINITE`. */
export async function svd({ values, rows, columns }: Matrix, rank: number): Promise<Svd> {
  return settled(await call(() => native().linalgSvd(values, rows, columns, rank)));
}

/** A random subspace, by its draw, and how many rounds turn it. */
export interface Subspace {
  iterations: number;
  draw: [seed: number, stream: number];
}

/** The same on a random subspace that rounds turn towards them: faster, and nearly as good. */
export async function lowRankSvd(
  { values, rows, columns }: Matrix,
  rank: number,
  { iterations, draw: [seed, draw] }: Subspace,
): Promise<Svd> {
  return settled(
    await call(() => native().linalgSvd(values, rows, columns, rank, { iterations, seed, draw })),
  );
}

/** The first `rank` columns of Q [rows, k] and rows of R [k, columns] in A = Q·R. Throws `ERR_NOT_FINITE`. */
export async function qr(
  { values, rows, columns }: Matrix,
  rank: number,
): Promise<{ q: Float64Array; r: Float64Array }> {
  return settled(await call(() => native().linalgQr(values, rows, columns, rank)));
}

/** What `PrincipalComponents.fit` tells. */
export interface Components {
  /** [k, features], the strongest first. */
  components: Float64Array;
  /** The share of the whole variance that each explains. */
  ratios: Float64Array;
  singularValues: Float64Array;
  /** The cosine between each and what it was before the last batch; empty after the first. */
  similarity: Float64Array;
}

/** Principal components of rows that come in batches. */
export class PrincipalComponents {
  readonly #inner;

  constructor(components: number, features: number) {
    this.#inner = call(() => new (native().PrincipalComponents)(components, features));
  }

  /** Takes rows in; fewer than components are left out, and what it tells is then empty or as before. */
  async fit(rows: Float32Array): Promise<Components> {
    const [seed, draw] = nextDropout();
    return settled(await call(() => this.#inner.fit(rows, seed, draw)));
  }
}

/** Runs `work` over all items, as many at once as threads may compute; results in the items' order. */
export async function overCores<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < items.length) {
      const at = next++;
      enterCpuUse();
      results[at] = await work(items[at] as T);
    }
  };
  await Promise.all(Array.from({ length: Math.min(cpuUse().threads, items.length) }, worker));
  return results;
}
