/** Selection of elements by index or position. */
import * as argument from "../arguments/check.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import { scope } from "./scope.js";
import type { Tensor } from "./tensor.js";
import { checkDimension, checkInteger, formatShape, checkTensor } from "./arguments.js";
import { recordInFloats, isHalf, recordOp } from "./operand.js";

export const indexing = {
  /**
   * Selects elements along `dim` by `index` (i32): y[.., k, ..] = x[.., index[.., k, ..], ..], as PyTorch's gather.
   *
   * Shapes: index has the same number of dimensions, none larger except `dim`; y has its shape, as f32, or i32 where
   * this is. Throws `ERR_INDEX` for an index out of range (an index known only to the device gives NaN),
   * `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`.
   */
  gather(dim: number, index: Tensor): Tensor {
    const axis = checkDimension("gather", dim, this.shape.length);
    const indices = checkTensor("gather", "index", index);
    return recordOp(() => session().gather(this.id, axis, indices.id));
  },

  /**
   * Selects slices along `dim` by `index` (i32, [N]): y has size N in that dimension. Throws `ERR_INDEX` for an index
   * out of range (an index known only to the device gives NaN), `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`.
   */
  indexSelect(dim: number, index: Tensor): Tensor {
    const axis = checkDimension("indexSelect", dim, this.shape.length);
    const indices = checkTensor("indexSelect", "index", index);
    if (indices.shape.length > 1) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `indexSelect: the index is [N], not ${formatShape(indices.shape)}`,
      );
    }
    return scope(() => {
      if (this.dtype === "i32") {
        const shape = this.shape.map((n, d) => (d === axis ? indices.size : n));
        const along = indices.reshape(shape.map((n, d) => (d === axis ? n : 1)));
        return this.gather(axis, along.expand(shape));
      }
      // Rows of a table, with the selected dimension first.
      const order = [axis, ...this.shape.map((_, d) => d).filter((d) => d !== axis)];
      const rest = order.slice(1).map((d) => this.shape[d] as number);
      const columns = rest.reduce((n, d) => n * d, 1);
      const table = this.permute(order).reshape(this.shape[axis] as number, columns);
      const ids = indices.reshape(indices.size);
      const rows = recordOp(() => session().embedding(table.id, ids.id, false));
      const back = this.shape.map((_, d) => order.indexOf(d));
      return rows.reshape([indices.size, ...rest]).permute(back);
    });
  },

  /**
   * Returns this with `src` added at `index` along `dim`: y[.., index[.., k, ..], ..] += src[.., k, ..], for ascending
   * k, so that the sum is the same in every run. On a GPU a line of n indices costs up to n² comparisons.
   *
   * Shapes: this, index (i32) and src have the same number of dimensions; index is no larger than src, nor, except
   * along `dim`, than this. Returns f32. Throws `ERR_INDEX` for an index out of range (an index known only to the
   * device adds nothing), `ERR_SHAPE_MISMATCH`, `ERR_DTYPE` where this or src is i32.
   */
  scatterAdd(dim: number, index: Tensor, src: Tensor): Tensor {
    const axis = checkDimension("scatterAdd", dim, this.shape.length);
    const [indices, from] = [
      checkTensor("scatterAdd", "index", index),
      checkTensor("scatterAdd", "src", src),
    ];
    if (isHalf(from.dtype)) return scope(() => this.scatterAdd(axis, indices, from.to("f32")));
    return recordInFloats(this, (x) => session().scatterAdd(x, axis, indices.id, from.id));
  },

  /**
   * Returns 1 at each index of this (i32) along a new last dimension of `classes`, else 0, as i32. Throws `ERR_INDEX`
   * for an index out of range (an index known only to the device gives no 1), `ERR_DTYPE`, `ERR_OPTION`.
   */
  oneHot(classes: number): Tensor {
    argument.checkWhole("oneHot", "classes", classes, 1);
    return recordOp(() => session().oneHot(this.id, classes));
  },

  /**
   * Returns the lower triangles of the last two dimensions, else 0: row i keeps columns up to i + `diagonal`. Throws
   * `ERR_SHAPE_MISMATCH` for fewer than two dimensions, `ERR_DTYPE` for i32, `ERR_OPTION`.
   */
  tril(diagonal = 0): Tensor {
    return keepTriangle(this, "tril", "le", diagonal);
  },

  /**
   * Returns the upper triangles of the last two dimensions, else 0: row i keeps columns from i + `diagonal`. Throws as
   * `tril` does.
   */
  triu(diagonal = 0): Tensor {
    return keepTriangle(this, "triu", "ge", diagonal);
  },
} satisfies ThisType<Tensor>;
export type Indexing = typeof indexing;

/** Keeps columns j of row i for which `compare(j, i + diagonal)` holds. */
function keepTriangle(x: Tensor, op: string, compare: "le" | "ge", diagonal: number): Tensor {
  checkInteger(op, "diagonal", diagonal);
  const [rows, columns] = x.shape.slice(-2);
  if (rows === undefined || columns === undefined) {
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `${op}: takes two dimensions or more, not ${formatShape(x.shape)}`,
    );
  }
  return scope(() => {
    const bounds = createIndices(x, [rows, 1], (i) => i + diagonal);
    return x.where(createIndices(x, [columns], (j) => j)[compare](bounds), 0);
  });
}

/** Creates whole numbers on the tensor's device. */
function createIndices(x: Tensor, shape: number[], indexAt: (i: number) => number): Tensor {
  const values = Int32Array.from({ length: shape[0] as number }, (_, i) =>
    Math.max(Math.min(indexAt(i), 2 ** 30), -(2 ** 30)),
  );
  const bytes = new Uint8Array(values.buffer);
  return recordOp(() => session().tensor(x.device, shape, "i32", bytes, false));
}
