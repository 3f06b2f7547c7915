import { tensor } from "../../tensor/create.js";
import { computeSvd, type Svd } from "../../tensor/linalg.js";
import { noGrad, scope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";

/**
 * The block structure of one layer's factors on the host. A grouped convolution or a merged linear layer has several
 * blocks, each a separate product: block j consists of rows j·R … of A, which has R·blocks rows, and rows j·rows/blocks …
 * of B [rows, R].
 */
export interface BlockStructure {
  blocks: number;
  /** R, the rank of one block. */
  blockRank: number;
  rows: number;
}

export interface Factors extends BlockStructure {
  a: Float32Array;
  b: Float32Array;
}

/** Derives the block structure of A [blocks·R, …] and B [rows, R, …]. */
export function deriveBlocks(a: Tensor, b: Tensor): BlockStructure {
  const [rows, blockRank] = b.shape as [number, number];
  return { blocks: (a.shape[0] as number) / blockRank, blockRank, rows };
}

/** Factors of an adapter in a sum, to which it adds weight · scaling · B·A. */
export interface WeightedFactors extends Factors {
  scaling: number;
  weight: number;
}

/** Returns Σ weight·scaling·B·A exactly, as one pair concatenated along the rank, with the factors multiplied into A. */
export function concatenateFactors(sources: readonly WeightedFactors[]): Factors {
  const { blocks, rows } = sources[0] as WeightedFactors;
  const R = sources.reduce((n, { blockRank }) => n + blockRank, 0);
  const columns = sources.map(({ a, blockRank }) => a.length / (blocks * blockRank))[0] as number;
  const a = new Float32Array(blocks * R * columns);
  const b = new Float32Array(rows * R);
  let before = 0;
  for (const { a: from, b: fromB, blockRank, scaling, weight } of sources) {
    for (let j = 0; j < blocks; j++) {
      const size = blockRank * columns;
      const to = (j * R + before) * columns;
      for (let i = 0; i < size; i++) a[to + i] = (from[j * size + i] as number) * scaling * weight;
    }
    for (let row = 0; row < rows; row++)
      b.set(fromB.subarray(row * blockRank, (row + 1) * blockRank), row * R + before);
    before += blockRank;
  }
  return { a, b, blocks, blockRank: R, rows };
}

/** Returns block j: A [R, columns] and B [rows / blocks, R]. */
function sliceBlock({ a, b, blocks, blockRank, rows }: Factors, j: number) {
  const columns = a.length / (blocks * blockRank);
  const height = rows / blocks;
  return {
    a: a.subarray(j * blockRank * columns, (j + 1) * blockRank * columns),
    b: b.subarray(j * height * blockRank, (j + 1) * height * blockRank),
    columns,
    height,
  };
}

/** Returns scaling·B·A [rows, columns], block by block. */
export async function multiplyFactors(source: WeightedFactors): Promise<Float32Array> {
  const { blocks, blockRank, scaling } = source;
  const product = noGrad(() =>
    scope(() => {
      const parts = Array.from({ length: blocks }, (_, j) => {
        const { a, b, columns, height } = sliceBlock(source, j);
        const right = tensor(a, { shape: [blockRank, columns], device: "cpu" });
        return tensor(b, { shape: [height, blockRank], device: "cpu" })
          .matmul(right)
          .mul(scaling);
      });
      const [first, ...rest] = parts as [Tensor, ...Tensor[]];
      return rest.length === 0 ? first : first.concat(rest, 0);
    }),
  );
  const values = (await product.data()) as Float32Array;
  product.dispose();
  return values;
}

/** Returns the best factors of rank `rank` for `values` [rows, columns], block by block. */
export async function approximate(
  values: Float32Array,
  { blocks, rows }: BlockStructure,
  rank: number,
): Promise<Factors> {
  const columns = values.length / rows;
  const height = rows / blocks;
  const out = createFactors(blocks, rows, columns, rank);
  for (let j = 0; j < blocks; j++) {
    const part = values.subarray(j * height * columns, (j + 1) * height * columns);
    storeBlock(out, j, await computeSvd({ values: part, rows: height, columns }, rank));
  }
  return out;
}

/**
 * Returns the best factors of rank `rank` for the product of `factors`, without computing it. With B = U₁S₁V₁ᵀ and
 * A = U₂S₂V₂ᵀ, B·A = U₁(S₁V₁ᵀU₂S₂)V₂ᵀ, so only B, A and a matrix of their rank are decomposed.
 */
export async function reduceRank(factors: Factors, rank: number): Promise<Factors> {
  const { a, blocks, blockRank: R, rows } = factors;
  const out = createFactors(blocks, rows, a.length / (blocks * R), rank);
  for (let j = 0; j < blocks; j++) {
    const { a: right, b: left, columns, height } = sliceBlock(factors, j);
    const [leftSvd, two] = await Promise.all([
      computeSvd({ values: left, rows: height, columns: R }, R),
      computeSvd({ values: right, rows: R, columns }, R),
    ]);
    const [m, n] = [leftSvd.s.length, two.s.length];
    const core = new Float32Array(m * n);
    for (let p = 0; p < m; p++) {
      for (let q = 0; q < n; q++) {
        let sum = 0;
        for (let i = 0; i < R; i++) sum += (leftSvd.vt[p * R + i] as number) * (two.u[i * n + q] as number);
        core[p * n + q] = (leftSvd.s[p] as number) * sum * (two.s[q] as number);
      }
    }
    const { u, s, vt } = await computeSvd({ values: core, rows: m, columns: n }, rank);
    storeBlock(out, j, { u: multiply(leftSvd.u, u, m), s, vt: multiply(vt, two.vt, n) });
  }
  return out;
}

function createFactors(blocks: number, rows: number, columns: number, rank: number): Factors {
  return {
    a: new Float32Array(blocks * rank * columns),
    b: new Float32Array(rows * rank),
    blocks,
    blockRank: rank,
    rows,
  };
}

/** Stores B = U·diag(s) and A = Vᵀ as block j; ranks beyond the decomposition's stay zero. */
function storeBlock(out: Factors, j: number, { u, s, vt }: Svd): void {
  const { a, b, columns, height } = sliceBlock(out, j);
  const [k, rank] = [s.length, out.blockRank];
  a.set(vt.subarray(0, Math.min(k, rank) * columns));
  for (let row = 0; row < height; row++) {
    for (let i = 0; i < k; i++) b[row * rank + i] = (u[row * k + i] as number) * (s[i] as number);
  }
}

/** Returns left [rows, inner] · right [inner, columns]. */
function multiply(left: Float64Array, right: Float64Array, inner: number): Float64Array {
  const [rows, columns] = [left.length / inner, right.length / inner];
  const out = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < inner; i++) {
      const value = left[row * inner + i] as number;
      for (let column = 0; column < columns; column++)
        out[row * columns + column] =
          (out[row * columns + column] as number) + value * (right[i * columns + column] as number);
    }
  }
  return out;
}
