/** What a run holds of its device at most, and for what. Bytes. */
export interface HeldMemory {
  /**
   * The most that the device's pool holds, which is `memory(device).peak` after such a run: all of `weights`, `adapters`,
   * `optimizer` and `activations` but what lies in mapped files.
   */
  peakBytes: number;
  /** Weights that are read in their mapped files, beside the pool; on a GPU 0. */
  mapped: number;
  /** The frozen weights, `mapped` among them. */
  weights: number;
  /** What is trained, and its gradients. */
  adapters: number;
  /** The optimizer's state: two moments of each trained value. */
  optimizer: number;
  /** What is left of the peak: what backward reads, scratch, and the pool's own room. */
  activations: number;
}
