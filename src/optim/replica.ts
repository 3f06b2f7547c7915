/** Copies of an optimizer's parameters on another device. */
import { session } from "../native/binding.js";
import type { Tensor } from "../tensor/tensor.js";
import type { Optimizer } from "./optimizer.js";

/**
 * The optimizer's parameters on another device. The optimizer adds their gradients to its own, and its values
 * are copied to them after an update. All work is recorded: the host waits for nothing.
 */
export class Replica {
  readonly #id: number;

  /**
   * `groups` are the copies, in the groups and the order of the optimizer. Throws as `Optimizer`, for tensors that are
   * no parameters or not f32.
   */
  constructor(groups: readonly (readonly Tensor[])[]) {
    this.#id = session().replica(groups.map((params) => params.map(({ id }) => id)));
  }

  /**
   * Adds these gradients to the optimizer's gradients, and sets them to null. Throws `ERR_SHAPE_MISMATCH` if the
   * optimizer has other parameters.
   */
  addGradientsTo(optimizer: Optimizer): void {
    session().addReplicaGradients(optimizer.nativeId, this.#id);
  }

  /** Copies the values of the optimizer's parameters. Throws as `addGradientsTo`. */
  copyValuesOf(optimizer: Optimizer): void {
    session().copyValuesToReplica(optimizer.nativeId, this.#id);
  }

  /** Frees the storage of the gradients. The tensors keep their values. */
  dispose(): void {
    session().disposeReplica(this.#id);
  }
}
