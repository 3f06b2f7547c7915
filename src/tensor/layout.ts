/** The same elements in another layout. All are copies but `reshape` and what is made of it. */
import { refuse } from "../argument.js";
import { LowrankError } from "../errors.js";
import { session } from "../native.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import { dimension, integer, shapeOf, sizes, tensorsOf } from "./arguments.js";
import { made, Operand } from "./operand.js";

export abstract class Layout extends Operand {
  /**
   * The same elements under another shape, of as many; one size may be −1, which the others leave. Nothing is copied.
   * Throws `ERR_SHAPE_MISMATCH` where the numbers of elements differ, `ERR_OPTION` for what is no size.
   */
  reshape(...shape: number[] | [readonly number[]]): Tensor {
    const completed = this.#completed(sizes("reshape", shape, -1));
    return made(() => session().reshape(this.id, completed));
  }

  /** Dimensions `start` to `end` as one. Throws `ERR_SHAPE_MISMATCH` where there are no such dimensions. */
  flatten(start = 0, end = -1): Tensor {
    const rank = this.shape.length;
    if (rank === 0) return this.reshape(1);
    const [from, to] = [dimension("flatten", start, rank), dimension("flatten", end, rank)];
    const merged = this.shape.slice(from, to + 1).reduce((n, d) => n * d, 1);
    return this.reshape([...this.shape.slice(0, from), merged, ...this.shape.slice(to + 1)]);
  }

  /** Without `dim` where its size is 1, or without all such dimensions. Throws `ERR_SHAPE_MISMATCH`. */
  squeeze(dim?: number): Tensor {
    if (dim === undefined) return this.reshape(this.shape.filter((d) => d !== 1));
    const at = dimension("squeeze", dim, this.shape.length);
    return this.reshape(this.shape.filter((d, i) => i !== at || d !== 1));
  }

  /** With a dimension of size 1 at `dim` of the result. Throws `ERR_SHAPE_MISMATCH`. */
  unsqueeze(dim: number): Tensor {
    const at = dimension("unsqueeze", dim, this.shape.length + 1);
    return this.reshape([...this.shape.slice(0, at), 1, ...this.shape.slice(at)]);
  }

  /** The dimensions in the order `dims`, which names each once. Throws `ERR_SHAPE_MISMATCH`. */
  permute(...dims: number[] | [readonly number[]]): Tensor {
    const order = (dims.flat() as number[]).map((d) => dimension("permute", d, this.shape.length));
    return made(() => session().permute(this.id, order));
  }

  /** Dimensions `a` and `b` change places: the last two unless given. Throws `ERR_SHAPE_MISMATCH`. */
  transpose(a = -2, b = -1): Tensor {
    const rank = this.shape.length;
    const order = this.shape.map((_, i) => i);
    const [i, j] = [dimension("transpose", a, rank), dimension("transpose", b, rank)];
    [order[i], order[j]] = [j, i];
    return this.permute(order);
  }

  /**
   * Elements `start` up to `end` (the dimension's own unless given) of dimension `dim`. Negative places count from its
   * end; what lies outside is left out, as in JavaScript's `slice`. Throws `ERR_SHAPE_MISMATCH`, `ERR_OPTION`.
   */
  slice(dim: number, start: number, end?: number): Tensor {
    const at = dimension("slice", dim, this.shape.length);
    const size = this.shape[at] as number;
    const place = (name: string, p: number): number => {
      const whole = Number.isFinite(p)
        ? integer("slice", name, p)
        : Number.isNaN(p)
          ? refuse("slice", name, "a whole number", p)
          : p;
      return Math.min(Math.max(whole < 0 ? whole + size : whole, 0), size);
    };
    const [from, to] = [place("start", start), place("end", end ?? size)];
    return made(() => session().slice(this.id, at, from, Math.max(from, to)));
  }

  /**
   * This and `others`, one after the other along `dim`; all their other sizes are the same (`torch.cat`). Throws
   * `ERR_SHAPE_MISMATCH`, `ERR_DTYPE` where they are stored differently, `ERR_OPTION` for what is no tensor.
   */
  concat(others: Tensor | readonly Tensor[], dim = 0): Tensor {
    const all: Operand[] = [this, ...tensorsOf("concat", "others", others)];
    const at = dimension("concat", dim, this.shape.length);
    const ids = all.map((t) => t.id);
    return made(() => session().concat(ids, at));
  }

  /** This and `others`, all of one shape, along a new dimension `dim`. Throws as `concat`. */
  stack(others: Tensor | readonly Tensor[], dim = 0): Tensor {
    const rest = tensorsOf("stack", "others", others);
    for (const other of rest) {
      if (shapeOf(other.shape) !== shapeOf(this.shape)) {
        throw new LowrankError(
          "ERR_SHAPE_MISMATCH",
          `stack: shapes ${shapeOf(this.shape)} and ${shapeOf(other.shape)} differ`,
        );
      }
    }
    const at = dimension("stack", dim, this.shape.length + 1);
    return scope(() =>
      this.unsqueeze(at).concat(
        rest.map((t) => t.unsqueeze(at)),
        at,
      ),
    );
  }

  /**
   * Pieces of dimension `dim`: of `size` elements each (the last may have fewer), or of the sizes of an array, whose sum
   * is the dimension's. Throws `ERR_SHAPE_MISMATCH` where they do not fit, `ERR_OPTION` for what is no size.
   */
  split(size: number | readonly number[], dim = 0): Tensor[] {
    const at = dimension("split", dim, this.shape.length);
    const n = this.shape[at] as number;
    if (!Array.isArray(size)) {
      const most = sizes("split", [size], 1)[0] as number;
      return this.#pieces(
        at,
        Array.from({ length: Math.max(1, Math.ceil(n / most)) }, (_, i) => Math.min(most, n - i * most)),
      );
    }
    const each = sizes("split", [size]);
    const total = each.reduce((a, b) => a + b, 0);
    if (total !== n || each.length === 0) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `split: sizes [${each.join(", ")}] add up to ${total}, and dimension ${at} of ${shapeOf(this.shape)} to ${n}`,
      );
    }
    return this.#pieces(at, each);
  }

  /**
   * At most `count` pieces of dimension `dim`, of ⌈size / count⌉ elements each, the last of what is left; so there may be
   * fewer, as in PyTorch. Throws `ERR_SHAPE_MISMATCH`, `ERR_OPTION`.
   */
  chunk(count: number, dim = 0): Tensor[] {
    const at = dimension("chunk", dim, this.shape.length);
    if (!Number.isSafeInteger(count) || count < 1)
      refuse("chunk", "count", "a whole number from 1 on", count);
    const n = this.shape[at] as number;
    return n === 0
      ? this.#pieces(
          at,
          Array.from({ length: count }, () => 0),
        )
      : this.split(Math.ceil(n / count), at);
  }

  #pieces(dim: number, each: readonly number[]): Tensor[] {
    let from = 0;
    return each.map((size) => this.slice(dim, from, (from += size)));
  }

  /** `shape` with what −1 stands for. */
  #completed(shape: number[]): number[] {
    const open = shape.indexOf(-1);
    if (open < 0) return shape;
    const known = shape.reduce((n, d, i) => (i === open ? n : n * d), 1);
    const rest = this.size / known;
    if (shape.lastIndexOf(-1) !== open || !Number.isInteger(rest)) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `reshape: [${shape.join(", ")}] leaves no size for −1 that gives the ${this.size} elements of ${shapeOf(this.shape)}`,
      );
    }
    return shape.map((d) => (d === -1 ? rest : d));
  }
}
