import type { Tensor } from "../../tensor.js";

/**
 * Two factors of one layer's ΔW, on the host. A layer of several blocks (a grouped convolution, a
 * merged linear layer) has as many products side by side: block j is rows j·R … of A, which holds
 * R·blocks rows, and rows j·rows/blocks … of B [rows, R].
 */
export interface Blocks {
  blocks: number;
  /** R, the rank of one block. */
  blockRank: number;
  rows: number;
}

export interface Factors extends Blocks {
  a: Float32Array;
  b: Float32Array;
}

/** How A [blocks·R, …] and B [rows, R, …] are cut. */
export function blocksOf(a: Tensor, b: Tensor): Blocks {
  const [rows, blockRank] = b.shape as [number, number];
  return { blocks: (a.shape[0] as number) / blockRank, blockRank, rows };
}

/** Factors of an adapter that goes into a sum, and how much its product counts. */
export interface Source extends Factors {
  scale: number;
}

/** Σ scale·B·A as one pair: the ranks stand side by side, and the scale is in A. Exact. */
export function concatenated(sources: readonly Source[]): Factors {
  const { blocks, rows } = sources[0] as Source;
  const R = sources.reduce((n, { blockRank }) => n + blockRank, 0);
  const columns = sources.map(({ a, blockRank }) => a.length / (blocks * blockRank))[0] as number;
  const a = new Float32Array(blocks * R * columns);
  const b = new Float32Array(rows * R);
  let before = 0;
  for (const { a: from, b: fromB, blockRank, scale } of sources) {
    for (let j = 0; j < blocks; j++) {
      const size = blockRank * columns;
      const to = (j * R + before) * columns;
      for (let i = 0; i < size; i++) a[to + i] = (from[j * size + i] as number) * scale;
    }
    for (let row = 0; row < rows; row++)
      b.set(fromB.subarray(row * blockRank, (row + 1) * blockRank), row * R + before);
    before += blockRank;
  }
  return { a, b, blocks, blockRank: R, rows };
}
