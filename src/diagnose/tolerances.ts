/** How far a GPU's numbers may be from the processor's, for each family of kernels, and why. */

/** Folders of the engine's `kernels`, and its optimizers. */
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
  /** The largest difference, relative to the largest number of the processor's. */
  limit: number;
  why: string;
}

/**
 * Both devices are held to 1e-5 of the largest number by the engine's own tests against f64, so they are within twice that
 * of each other.
 */
const ROUNDINGS: Tolerance = {
  limit: 2e-5,
  why: "both devices are within 1e-5 of f64: a few hundred roundings of f32 (6e-8 each)",
};

/** Numbers that are moved, not computed. */
const EXACT: Tolerance = { limit: 0, why: "values are moved and not computed" };

/** The tolerance of each family. Whole numbers have to be equal in every family. */
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
 * Factors are rounded to f16 (relative error 2⁻¹¹), so a term errs by 2⁻¹⁰ of its size; over K terms that sums to at most
 * 2⁻¹⁰·Σ|a·b|, which for factors that are uniform on (−1, 1) and K ≤ 131 is below 6 times the largest sum over 2¹⁰.
 */
export const F16_PRODUCTS = 6 / 1024;
