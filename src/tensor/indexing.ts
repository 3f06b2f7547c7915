/** Elements chosen by index, and what scores are for. */
import { session } from "../native.js";
import type { Tensor } from "../tensor.js";
import { dimension } from "./arguments.js";
import { made } from "./operand.js";
import { Reductions } from "./reductions.js";

export abstract class Indexing extends Reductions {
  /** The elements along `dim` at `index` (i32), as PyTorch's gather. */
  gather(dim: number, index: Tensor): Tensor {
    return made(() => session().gather(this.id, dimension("gather", dim, this.shape.length), index.id));
  }
}
