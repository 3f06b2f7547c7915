/** Elements chosen by index or by place. */
import * as argument from "../argument.js";
import { LowrankError } from "../errors.js";
import { session } from "../native.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import { dimension, integer, shapeOf, tensorOf } from "./arguments.js";
import { isHalf, made } from "./operand.js";
import { Reductions } from "./reductions.js";

export abstract class Indexing extends Reductions {
  /**
   * The elements along `dim` at `index` (i32): y[.., k, ..] = x[.., index[.., k, ..], ..], as PyTorch's gather.
   *
   * Shapes: index has as many dimensions as this, none but `dim` larger; y has its shape, as f32, or i32 where
   * this is. Throws `ERR_INDEX` for an index outside the dimension (where the host does not know it, its element is NaN),
   * `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`.
   */
  gather(dim: number, index: Tensor): Tensor {
    const at = dimension("gather", dim, this.shape.length);
    const of = tensorOf("gather", "index", index);
    return made(() => session().gather(this.id, at, of.id));
  }

  /**
   * The slices of dimension `dim` that `index` (i32, [N]) names, in its order: y has N instead of that dimension.
   * Throws `ERR_INDEX` for an index outside the dimension (where the host does not know it, its slice is NaN),
   * `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`.
   */
  indexSelect(dim: number, index: Tensor): Tensor {
    const at = dimension("indexSelect", dim, this.shape.length);
    const of = tensorOf("indexSelect", "index", index);
    if (of.shape.length > 1) {
      throw new LowrankError("ERR_SHAPE_MISMATCH", `indexSelect: the index is [N], not ${shapeOf(of.shape)}`);
    }
    return scope(() => {
      if (this.dtype === "i32") {
        const shape = this.shape.map((n, d) => (d === at ? of.size : n));
        const along = of.reshape(shape.map((n, d) => (d === at ? n : 1)));
        return this.gather(at, along.expand(shape));
      }
      // As rows of a table, with the dimension in front.
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

  /**
   * This with `src` added at `index` along `dim`: y[.., index[.., k, ..], ..] += src[.., k, ..], in the order of k, so that
   * the sum is the same on every run. On a gpu a line of n indices costs up to n² comparisons.
   *
   * Shapes: this, index (i32) and src have as many dimensions; index is no larger than src, nor, but along `dim`, than
   * this. It gives f32. Throws `ERR_INDEX` for an index outside the dimension (where the host does not know it, it adds
   * nothing), `ERR_SHAPE_MISMATCH`, `ERR_DTYPE` where this or src is i32.
   */
  scatterAdd(dim: number, index: Tensor, src: Tensor): Tensor {
    const at = dimension("scatterAdd", dim, this.shape.length);
    const [of, from] = [tensorOf("scatterAdd", "index", index), tensorOf("scatterAdd", "src", src)];
    if (isHalf(from.dtype)) return scope(() => this.scatterAdd(at, of, from.to("f32")));
    return this.inFloats((x) => session().scatterAdd(x, at, of.id, from.id));
  }

  /**
   * 1 at each index of this (i32) along a new last dimension of `classes`, 0 elsewhere, as i32. Throws `ERR_INDEX` for an
   * index outside of it (where the host does not know it, there is no 1), `ERR_DTYPE`, `ERR_OPTION`.
   */
  oneHot(classes: number): Tensor {
    argument.whole("oneHot", "classes", classes, 1);
    return made(() => session().oneHot(this.id, classes));
  }

  /**
   * The lower triangles of the last two dimensions, 0 elsewhere: row i keeps columns up to i + `diagonal`. Throws
   * `ERR_SHAPE_MISMATCH` unless there are two dimensions, `ERR_DTYPE` for i32, `ERR_OPTION`.
   */
  tril(diagonal = 0): Tensor {
    return this.#triangle("tril", "le", diagonal);
  }

  /** The upper triangles of the last two dimensions, 0 elsewhere: row i keeps columns from i + `diagonal` on. As `tril`. */
  triu(diagonal = 0): Tensor {
    return this.#triangle("triu", "ge", diagonal);
  }

  /** What of this stands at columns that `compare` as i + `diagonal` of row i. */
  #triangle(op: string, compare: "le" | "ge", diagonal: number): Tensor {
    integer(op, "diagonal", diagonal);
    const [rows, columns] = this.shape.slice(-2);
    if (rows === undefined || columns === undefined) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `${op}: takes two dimensions or more, not ${shapeOf(this.shape)}`,
      );
    }
    return scope(() => {
      const bounds = this.#whole([rows, 1], (i) => i + diagonal);
      return this.self.where(this.#whole([columns], (j) => j)[compare](bounds), 0);
    });
  }

  /** Whole numbers on this one's device. */
  #whole(shape: number[], at: (i: number) => number): Tensor {
    const values = Int32Array.from({ length: shape[0] as number }, (_, i) =>
      Math.max(Math.min(at(i), 2 ** 30), -(2 ** 30)),
    );
    const bytes = new Uint8Array(values.buffer);
    return made(() => session().tensor(this.device, shape, "i32", bytes, false));
  }
}
