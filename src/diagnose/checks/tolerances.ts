/** Tolerances of a GPU's numbers relative to the CPU's, by kernel family, with reasons. */

/** Kernel families: folders of the engine's `kernels`, and its optimizers. */
export type Family =
  | "attention"
  | "cast"
  | "conv"
  | "copy"
  | "cross_entropy"
  | "dropout"
  | "elementwise"
  | "embedding"
  | "fill"
  | "flip"
  | "gather"
  | "gemm"
  | "norm"
  | "optim"
  | "pad"
  | "pool"
  | "recurrence"
  | "reduce"
  | "rotary"
  | "sample"
  | "scan"
  | "softmax"
  | "sort";

export interface Tolerance {
  /** The largest difference, relative to the CPU's largest number. */
  limit: number;
  why: string;
}

/**
 * The engine's tests check both devices against f64 with a tolerance of 1e-5 of the largest number, so the devices differ
 * by at most twice that.
 */
const ROUNDINGS: Tolerance = {
  limit: 2e-5,
  why: "both devices are within 1e-5 of f64: a few hundred roundings of f32 (6e-8 each)",
};

/** Values that are moved and not computed. */
const EXACT: Tolerance = { limit: 0, why: "values are moved and not computed" };

/** The tolerance of each family. Whole numbers must always be equal. */
export const TOLERANCES: Readonly<Record<Family, Tolerance>> = {
  attention: ROUNDINGS,
  cast: { limit: 0, why: "rounding to the nearest is defined to the bit" },
  conv: {
    limit: 4e-5,
    why: "as products; the processor's tiles of 2 × 2 (Winograd) lose one more digit in binary",
  },
  copy: EXACT,
  cross_entropy: ROUNDINGS,
  dropout: { limit: 1e-6, why: "masks are equal to the bit; what is kept is scaled, which rounds once" },
  elementwise: ROUNDINGS,
  embedding: { limit: 2e-5, why: "rows are moved; gradients of a token that occurs often are sums" },
  fill: EXACT,
  flip: EXACT,
  gather: { limit: 2e-5, why: "values are moved; gradients are sums" },
  gemm: ROUNDINGS,
  norm: ROUNDINGS,
  optim: {
    limit: 1e-4,
    why: "Adam divides by the root of a mean square, which doubles the relative error of small gradients",
  },
  pad: { limit: 2e-5, why: "values are moved; gradients are sums" },
  pool: ROUNDINGS,
  recurrence: ROUNDINGS,
  reduce: ROUNDINGS,
  rotary: ROUNDINGS,
  sample: { limit: 0, why: "the same draw and the same probabilities choose the same token" },
  scan: { limit: 4e-5, why: "running sums keep the errors of all terms before" },
  softmax: ROUNDINGS,
  sort: { limit: 0, why: "values are moved; the order is defined" },
};

/**
 * The tolerance of products with f16 factors. Rounding to f16 has a relative error of 2⁻¹¹, so a term has an error of 2⁻¹⁰
 * of its magnitude. Over K terms this sums to at most 2⁻¹⁰·Σ|a·b|. For factors uniform on (−1, 1) and K ≤ 131 that is less
 * than 6 times the largest sum over 2¹⁰.
 */
export const F16_PRODUCTS = 6 / 1024;
