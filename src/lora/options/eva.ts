/** What `initLoraWeights: "eva"` is given. */
import type { Tensor } from "../../tensor.js";

/** A batch that is run through the frozen model: ids i32 [B, T], or what else its forward takes first. */
export type EvaBatch =
  | Tensor
  | {
      /** i32 [B, T], or what else the model's forward takes first. */
      ids: Tensor;
      /** i32 [B, T]; a position where it is 0 does not count. */
      attentionMask?: Tensor | undefined;
      /** i32 [B, T]; a position where it is −100 does not count. */
      labels?: Tensor | undefined;
    };

/** Batches, which are gone through again until the components have settled. */
export type EvaData = Iterable<EvaBatch> | AsyncIterable<EvaBatch>;

/** PEFT's EvaConfig. */
export interface EvaConfig {
  /** How many times its rank a layer may get; 2. */
  rho?: number | undefined;
  /** Components have settled when they turn by less than this cosine; 0.99. */
  tau?: number | undefined;
  /** Whether positions without a label count for nothing; true. */
  useLabelMask?: boolean | undefined;
  /** Whether components are divided by the roots of their singular values; false. */
  whiten?: boolean | undefined;
  /** Whether alpha follows the rank, so that the scaling stays; true. */
  adjustScalingFactors?: boolean | undefined;
}

export const EVA_DEFAULTS: Required<EvaConfig> = {
  rho: 2,
  tau: 0.99,
  useLabelMask: true,
  whiten: false,
  adjustScalingFactors: true,
};

/** @internal The most batches that are looked at; components of real data settle within tens. */
export const MOST_BATCHES = 1000;
