/** Matrix decompositions in f64, outside the event loop. */
import { call, native, unwrapResult } from "../native/binding.js";
import { drawStream } from "./random.js";
import { cpuUse, enterCpuUse } from "./scope.js";

/** A row-major matrix on the host. */
export interface Matrix {
  values: Float32Array;
  rows: number;
  columns: number;
}

/** A ≈ U·diag(s)·Vᵀ: U [rows, k], s [k] in descending order, Vᵀ [k, columns]. */
export interface Svd {
  u: Float64Array;
  s: Float64Array;
  vt: Float64Array;
}

/** Computes the `rank` largest singular values with their vectors. Throws `ERR_NOT_FINITE`. */
export async function computeSvd({ values, rows, columns }: Matrix, rank: number): Promise<Svd> {
  return unwrapResult(await call(() => native().linalgSvd(values, rows, columns, rank)));
}

/** A random subspace: the random draw and the number of power iterations. */
export interface Subspace {
  iterations: number;
  draw: [seed: number, stream: number];
}

/** Approximates `computeSvd` on a random subspace refined by power iterations, which is faster. */
export async function approximateSvd(
  { values, rows, columns }: Matrix,
  rank: number,
  { iterations, draw: [seed, draw] }: Subspace,
): Promise<Svd> {
  return unwrapResult(
    await call(() => native().linalgSvd(values, rows, columns, rank, { iterations, seed, draw })),
  );
}

/** Computes the first `rank` columns of Q [rows, k] and rows of R [k, columns] of A = Q·R. Throws `ERR_NOT_FINITE`. */
export async function computeQr(
  { values, rows, columns }: Matrix,
  rank: number,
): Promise<{ q: Float64Array; r: Float64Array }> {
  return unwrapResult(await call(() => native().linalgQr(values, rows, columns, rank)));
}

/** The result of `PrincipalComponents.fit`. */
export interface Components {
  /** [k, features], by descending variance. */
  components: Float64Array;
  /** The fraction of the total variance that each component explains. */
  ratios: Float64Array;
  singularValues: Float64Array;
  /** The cosine between each component and its value before the last batch; empty after the first batch. */
  similarity: Float64Array;
}

/** Incremental principal component analysis over batches of rows. */
export class PrincipalComponents {
  readonly #inner;

  constructor(components: number, features: number) {
    this.#inner = call(() => new (native().PrincipalComponents)(components, features));
  }

  /** Adds a batch of rows. A batch with fewer rows than components is ignored; the result is then unchanged, or empty at first. */
  async fit(rows: Float32Array): Promise<Components> {
    const [seed, draw] = drawStream();
    return unwrapResult(await call(() => this.#inner.fit(rows, seed, draw)));
  }
}

/** Runs `work` over all items, at most `cpuUse().threads` at once; returns results in the items' order. */
export async function mapOverCores<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const runWorker = async (): Promise<void> => {
    while (next < items.length) {
      const index = next++;
      enterCpuUse();
      results[index] = await work(items[index] as T);
    }
  };
  await Promise.all(Array.from({ length: Math.min(cpuUse().threads, items.length) }, runWorker));
  return results;
}
