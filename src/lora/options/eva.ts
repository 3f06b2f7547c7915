/** Data and configuration for `initLoraWeights: "eva"`. */
import type { Tensor } from "../../tensor/tensor.js";

/** A batch for the frozen model: ids i32 [B, T], or another first argument of its forward. */
export type EvaBatch =
  | Tensor
  | {
      /** i32 [B, T], or another first argument of the model's forward. */
      ids: Tensor;
      /** i32 [B, T]; positions with 0 are ignored. */
      attentionMask?: Tensor | undefined;
      /** i32 [B, T]; positions with −100 are ignored. */
      labels?: Tensor | undefined;
    };

/** Batches; they are repeated until the components have converged. */
export type EvaData = Iterable<EvaBatch> | AsyncIterable<EvaBatch>;

/** PEFT's EvaConfig. */
export interface EvaConfig {
  /** The largest rank of a layer, as a multiple of the option `r`. Default: 2. */
  rho?: number | undefined;
  /** The cosine similarity between successive estimates at which a component counts as converged. Default: 0.99. */
  tau?: number | undefined;
  /** Whether positions without a label are ignored. Default: true. */
  useLabelMask?: boolean | undefined;
  /** Whether components are divided by the square roots of their singular values. Default: false. */
  whiten?: boolean | undefined;
  /** Whether alpha is scaled with the rank, so that the scaling stays the same. Default: true. */
  adjustScalingFactors?: boolean | undefined;
}

export const EVA_DEFAULTS: Required<EvaConfig> = {
  rho: 2,
  tau: 0.99,
  useLabelMask: true,
  whiten: false,
  adjustScalingFactors: true,
};

/** @internal The largest number of batches to read; components of real data converge within tens. */
export const MOST_BATCHES = 1000;
