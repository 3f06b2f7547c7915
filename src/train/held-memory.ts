/** The memory of a run on its device. */
import type { OffloadedBytes } from "../models/offload.js";

/** The peak memory of a run on its device, by purpose, in bytes. */
export interface HeldMemory {
  /**
   * The peak of the device's pool, `memory(device).peak` after such a run: the sum of `weights`, `adapters`, `optimizer`
   * and `activations`, without mapped files.
   */
  peakBytes: number;
  /** Memory-mapped weights, outside the pool; 0 on a GPU. */
  mapped: number;
  /** The frozen weights, including `mapped`; with `offloadWeights`, two blocks and the weights outside the blocks. */
  weights: number;
  /** The trained values and their gradients. */
  adapters: number;
  /** The optimizer's state, for example two moments of each trained value. */
  optimizer: number;
  /** The rest of the peak: saved activations, scratch buffers, and idle memory of the pool. */
  activations: number;
  /** All weights of the blocks that the host keeps, for `offloadWeights`; not part of `peakBytes`. */
  offloaded?: OffloadedBytes | undefined;
}
