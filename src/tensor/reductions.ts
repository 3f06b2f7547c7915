/** Over one dimension, or all. */
import { session } from "../native.js";
import type { Tensor } from "../tensor.js";
import { dimension } from "./arguments.js";
import { Elementwise } from "./elementwise.js";
import { made } from "./operand.js";

export abstract class Reductions extends Elementwise {
  sum(dim?: number, { keepDim = false } = {}): Tensor {
    return this.#reduce(dim, keepDim, (d) => session().sum(this.id, d));
  }
  mean(dim?: number, { keepDim = false } = {}): Tensor {
    return this.#reduce(dim, keepDim, (d) => session().mean(this.id, d));
  }
  /** The largest values, over `dim` or all. */
  max(dim?: number, { keepDim = false } = {}): Tensor {
    return this.#reduce(dim, keepDim, (d) => session().max(this.id, d));
  }
  /** Where the largest is, as i32. */
  argmax(dim?: number, { keepDim = false } = {}): Tensor {
    return this.#reduce(dim, keepDim, (d) => session().argmax(this.id, d));
  }
  softmax(dim = -1): Tensor {
    return made(() => session().softmax(this.id, dimension("softmax", dim, this.shape.length)));
  }
  logSoftmax(dim = -1): Tensor {
    return made(() => session().logSoftmax(this.id, dimension("logSoftmax", dim, this.shape.length)));
  }

  #reduce(dim: number | undefined, keepDim: boolean, op: (dim: number | undefined) => number): Tensor {
    const at = dim === undefined ? undefined : dimension("reduce", dim, this.shape.length);
    const reduced = made(() => op(at));
    if (!keepDim) return reduced;
    const kept = reduced.reshape(this.shape.map((d, i) => (at === undefined || i === at ? 1 : d)));
    reduced.dispose();
    return kept;
  }
}
