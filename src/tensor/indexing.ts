/** Elements chosen by index or by place. */
import { LowrankError } from "../errors.js";
import { session } from "../native.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import { dimension, shapeOf, tensorOf } from "./arguments.js";
import { made } from "./operand.js";
import { Reductions } from "./reductions.js";

export abstract class Indexing extends Reductions {
  /**
   * The elements along `dim` at `index` (i32): y[.., k, ..] = x[.., index[.., k, ..], ..], as PyTorch's gather.
   *
   * Shapes: index has as many dimensions as this, none but `dim` larger; y has its shape. Throws `ERR_INDEX` for an index
   * outside the dimension (where the host does not know it, its element is NaN), `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`.
   */
  gather(dim: number, index: Tensor): Tensor {
    const at = dimension("gather", dim, this.shape.length);
    const of = tensorOf("gather", "index", index);
    return made(() => session().gather(this.id, at, of.id));
  }

  /**
   * The slices of dimension `dim` that `index` (i32, [N]) names, in its order: y has N in the place of that dimension.
   * Throws `ERR_INDEX` for an index outside the dimension (where the host does not know it, its slice is NaN),
   * `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`.
   */
  indexSelect(dim: number, index: Tensor): Tensor {
    const at = dimension("indexSelect", dim, this.shape.length);
    const of = tensorOf("indexSelect", "index", index);
    if (of.shape.length > 1) {
      throw new LowrankError("ERR_SHAPE_MISMATCH", `indexSelect: the index is [N], not ${shapeOf(of.shape)}`);
    }
    // As rows of a table, with the dimension in front.
    return scope(() => {
      const order = [at, ...this.shape.map((_, d) => d).filter((d) => d !== at)];
      const rest = order.slice(1).map((d) => this.shape[d] as number);
      const columns = rest.reduce((n, d) => n * d, 1);
      const table = this.permute(order).reshape(this.shape[at] as number, columns);
      const ids = of.reshape(of.size);
      const taken = made(() => session().embedding(table.id, ids.id, false));
      const back = this.shape.map((_, d) => order.indexOf(d));
      return taken.reshape([of.size, ...rest]).permute(back);
    });
  }
}
