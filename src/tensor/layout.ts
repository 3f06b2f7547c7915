/** Changes of layout. All methods copy, except `reshape` and the methods based on it. */
import * as argument from "../arguments/check.js";
import { refuse } from "../arguments/check.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import { scope } from "./scope.js";
import type { Tensor } from "./tensor.js";
import {
  checkDimension,
  checkDimensions,
  checkInteger,
  formatShape,
  checkSizes,
  checkTensors,
} from "./arguments.js";
import { recordOp, recordOps } from "./operand.js";

/** Options of `pad`. */
export interface PadOptions {
  /** The padding: `value` (`constant`, the default), the mirror image, the edge, or the opposite edge. */
  mode?: "constant" | "reflect" | "replicate" | "circular" | undefined;
  /** The value of `constant` padding; 0 by default. */
  value?: number | undefined;
}

export const layout = {
  /**
   * Returns the same elements in another shape, without copying; one size may be −1 and is inferred. Throws
   * `ERR_SHAPE_MISMATCH` where the number of elements differs, `ERR_OPTION` for an invalid size.
   */
  reshape(...shape: number[] | [readonly number[]]): Tensor {
    const completed = inferShape(this, checkSizes("reshape", shape, -1));
    return recordOp(() => session().reshape(this.id, completed));
  },

  /** Merges dimensions `start` to `end`, all by default. Throws `ERR_SHAPE_MISMATCH` for a missing dimension. */
  flatten(start = 0, end = -1): Tensor {
    const rank = this.shape.length;
    if (rank === 0) return this.reshape(1);
    const [from, to] = [checkDimension("flatten", start, rank), checkDimension("flatten", end, rank)];
    const merged = this.shape.slice(from, to + 1).reduce((n, d) => n * d, 1);
    return this.reshape([...this.shape.slice(0, from), merged, ...this.shape.slice(to + 1)]);
  },

  /** Removes `dim` if its size is 1, or all such dimensions. Throws `ERR_SHAPE_MISMATCH`. */
  squeeze(dim?: number): Tensor {
    if (dim === undefined) return this.reshape(this.shape.filter((d) => d !== 1));
    const axis = checkDimension("squeeze", dim, this.shape.length);
    return this.reshape(this.shape.filter((d, i) => i !== axis || d !== 1));
  },

  /** Inserts a dimension of size 1 at `dim` of the result. Throws `ERR_SHAPE_MISMATCH`. */
  unsqueeze(dim: number): Tensor {
    const axis = checkDimension("unsqueeze", dim, this.shape.length + 1);
    return this.reshape([...this.shape.slice(0, axis), 1, ...this.shape.slice(axis)]);
  },

  /** Copies with dimensions in the order `dims`, which names each once. Throws `ERR_SHAPE_MISMATCH`. */
  permute(...dims: number[] | [readonly number[]]): Tensor {
    const order = (dims.flat() as number[]).map((d) => checkDimension("permute", d, this.shape.length));
    return recordOp(() => session().permute(this.id, order));
  },

  /** Copies with dimensions `a` and `b` swapped, the last two by default. Throws `ERR_SHAPE_MISMATCH`. */
  transpose(a = -2, b = -1): Tensor {
    const rank = this.shape.length;
    const order = this.shape.map((_, i) => i);
    const [i, j] = [checkDimension("transpose", a, rank), checkDimension("transpose", b, rank)];
    [order[i], order[j]] = [j, i];
    return this.permute(order);
  },

  /**
   * Copies elements `start` to `end` (exclusive; the dimension's size by default) of dimension `dim`. Negative
   * positions count from its end, and positions are clamped, as in JavaScript's `slice`. Throws `ERR_SHAPE_MISMATCH`,
   * `ERR_OPTION`.
   */
  slice(dim: number, start: number, end?: number): Tensor {
    const axis = checkDimension("slice", dim, this.shape.length);
    const size = this.shape[axis] as number;
    const checkPosition = (name: string, p: number): number => {
      const integer = p === Infinity || p === -Infinity ? p : checkInteger("slice", name, p);
      return Math.min(Math.max(integer < 0 ? integer + size : integer, 0), size);
    };
    const [from, to] = [checkPosition("start", start), checkPosition("end", end ?? size)];
    return recordOp(() => session().slice(this.id, axis, from, Math.max(from, to)));
  },

  /**
   * Concatenates this and `others` along `dim` (`torch.cat`); all other sizes must be equal. Throws
   * `ERR_SHAPE_MISMATCH`, `ERR_DTYPE` for different dtypes, `ERR_OPTION` for an argument that is not a tensor.
   */
  concat(others: Tensor | readonly Tensor[], dim = 0): Tensor {
    const all = [this, ...checkTensors("concat", "others", others)];
    const axis = checkDimension("concat", dim, this.shape.length);
    const ids = all.map((t) => t.id);
    return recordOp(() => session().concat(ids, axis));
  },

  /** Stacks this and `others`, of the same shape, along a new dimension `dim`. Throws as `concat` does. */
  stack(others: Tensor | readonly Tensor[], dim = 0): Tensor {
    const rest = checkTensors("stack", "others", others);
    for (const other of rest) {
      if (formatShape(other.shape) !== formatShape(this.shape)) {
        throw new LowrankError(
          "ERR_SHAPE_MISMATCH",
          `stack: shapes ${formatShape(this.shape)} and ${formatShape(other.shape)} differ`,
        );
      }
    }
    const axis = checkDimension("stack", dim, this.shape.length + 1);
    return scope(() =>
      this.unsqueeze(axis).concat(
        rest.map((t) => t.unsqueeze(axis)),
        axis,
      ),
    );
  },

  /**
   * Splits dimension `dim` into pieces of `size` elements (the last may be smaller), or of the sizes in an array, which
   * must add up to the dimension's size. Throws `ERR_SHAPE_MISMATCH` where they do not, `ERR_OPTION` for an invalid
   * size.
   */
  split(size: number | readonly number[], dim = 0): Tensor[] {
    const axis = checkDimension("split", dim, this.shape.length);
    const n = this.shape[axis] as number;
    if (!Array.isArray(size)) {
      const most = checkSizes("split", [size], 1)[0] as number;
      return splitInto(
        this,
        axis,
        Array.from({ length: Math.max(1, Math.ceil(n / most)) }, (_, i) => Math.min(most, n - i * most)),
      );
    }
    const each = checkSizes("split", [size]);
    const total = each.reduce((a, b) => a + b, 0);
    if (total !== n || each.length === 0) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `split: sizes [${each.join(", ")}] add up to ${total}, and dimension ${axis} of ${formatShape(this.shape)} to ${n}`,
      );
    }
    return splitInto(this, axis, each);
  },

  /**
   * Splits dimension `dim` into at most `count` pieces of ⌈size / count⌉ elements, the last with the rest; there may be
   * fewer pieces, as in PyTorch. Throws `ERR_SHAPE_MISMATCH`, `ERR_OPTION`.
   */
  chunk(count: number, dim = 0): Tensor[] {
    const axis = checkDimension("chunk", dim, this.shape.length);
    if (!Number.isSafeInteger(count) || count < 1)
      refuse("chunk", "count", "a whole number of at least 1", count);
    const n = this.shape[axis] as number;
    return n === 0
      ? splitInto(
          this,
          axis,
          Array.from({ length: count }, () => 0),
        )
      : this.split(Math.ceil(n / count), axis);
  },

  /**
   * Repeats dimensions of size 1, and adds new leading ones, to reach `shape`; −1 keeps a size. A copy, unlike
   * PyTorch's view; arithmetic broadcasts without it. Throws `ERR_SHAPE_MISMATCH`, `ERR_OPTION`.
   */
  expand(...shape: number[] | [readonly number[]]): Tensor {
    const wanted = checkSizes("expand", shape, -1);
    const added = wanted.length - this.shape.length;
    const sizes = wanted.map((n, d) => (n === -1 && d >= added ? (this.shape[d - added] as number) : n));
    if (sizes.includes(-1))
      refuse("expand", `shape[${sizes.indexOf(-1)}]`, "the size of a new dimension", -1);
    return recordOp(() => session().expand(this.id, sizes));
  },

  /**
   * Tiles this `counts` times along each dimension (`torch.Tensor.repeat`); more counts than dimensions add leading
   * ones. Throws `ERR_SHAPE_MISMATCH` for too few counts, `ERR_OPTION`.
   */
  repeat(...counts: number[] | [readonly number[]]): Tensor {
    const times = checkSizes("repeat", counts);
    const added = times.length - this.shape.length;
    if (added < 0) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `repeat: [${times.join(", ")}] names ${times.length} of the ${this.shape.length} dimensions of ${formatShape(this.shape)}`,
      );
    }
    const padded = [...times.slice(0, added).map(() => 1), ...this.shape];
    // Each repeated dimension is expanded through a new one in front of it, two per step: a copy has at most six
    // dimensions.
    return scope(() => {
      let x = this.reshape(padded);
      const repeated = times.map((_, d) => d).filter((d) => times[d] !== 1);
      for (let from = 0; from < repeated.length; from += 2) {
        const dims = new Set(repeated.slice(from, from + 2));
        const [start, pairs] = [
          [...x.shape],
          (f: (n: number, d: number) => number[]): number[] => start.flatMap(f),
        ];
        const lone = x.reshape(pairs((n, d) => (dims.has(d) ? [1, n] : [n])));
        const many = lone.expand(pairs((n, d) => (dims.has(d) ? [times[d] as number, n] : [n])));
        x = many.reshape(start.map((n, d) => (dims.has(d) ? n * (times[d] as number) : n)));
      }
      return x;
    });
  },

  /** Reverses dimensions `dims`, given as an array or as arguments. Throws `ERR_SHAPE_MISMATCH`. */
  flip(...dims: number[] | [readonly number[]]): Tensor {
    const named = dims.flat() as number[];
    const places = named.length === 0 ? [] : checkDimensions("flip", named, this.shape.length);
    return recordOp(() => session().flip(this.id, places));
  },

  /**
   * Pads the ends of the last dimensions: `padding` has two sizes per dimension, before and after, starting with the
   * last dimension, as in `torch.nn.functional.pad`; negative sizes crop. `mode` chooses the padding: `value`
   * (`constant`), the mirror image without the edge itself (`reflect`), the edge (`replicate`), or the opposite edge
   * (`circular`). Throws `ERR_SHAPE_MISMATCH` where it does not fit, `ERR_DTYPE` (modes other than `constant` take
   * f32), `ERR_OPTION`.
   */
  pad(padding: readonly number[], options?: PadOptions): Tensor {
    const { mode = "constant", value = 0 } = argument.checkKnownOptions("pad", options, ["mode", "value"]);
    argument.checkChoice("pad", "mode", mode, ["constant", "reflect", "replicate", "circular"]);
    if (typeof value !== "number") refuse("pad", "value", "a number", value);
    const list = argument.checkList("pad", "padding", padding, checkInteger);
    const rank = this.shape.length;
    if (list.length % 2 !== 0 || list.length > 2 * rank) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `pad: padding has two sizes per dimension, at most ${2 * rank} for ${formatShape(this.shape)}, not ${list.length}`,
      );
    }
    // The engine expects the first padded dimension first.
    const pairs = Array.from({ length: list.length / 2 }, (_, i) => list.slice(2 * i, 2 * i + 2)).reverse();
    const grown = pairs.flat().map((n) => Math.max(n, 0));
    return scope(() => {
      const x = cropDimensions(this, rank - pairs.length, pairs);
      if (mode === "constant") return recordOp(() => session().constantPad(x.id, grown, value));
      // The engine's geometry has 32-bit sizes.
      if (grown.some((n) => n >= 2 ** 31)) refuse("pad", "padding", "of sizes below 2^31", list);
      return recordOp(() => session().pad(x.id, grown, mode));
    });
  },
} satisfies ThisType<Tensor>;
export type Layout = typeof layout;

/** Crops dimensions from `first` by their negative padding. */
function cropDimensions(x: Tensor, first: number, pairs: readonly number[][]): Tensor {
  let cropped = x;
  pairs.forEach(([before, after], i) => {
    const [from, to] = [Math.min(before as number, 0), Math.min(after as number, 0)];
    if (from === 0 && to === 0) return;
    const n = cropped.shape[first + i] as number;
    if (n + from + to < 0) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `pad: [${before}, ${after}] cuts off more than the ${n} of dimension ${first + i} of ${formatShape(x.shape)}`,
      );
    }
    cropped = cropped.slice(first + i, -from, n + to);
  });
  return cropped;
}

function splitInto(x: Tensor, dim: number, each: readonly number[]): Tensor[] {
  return recordOps(() => session().split(x.id, dim, [...each]));
}

/** Replaces −1 in `shape` by the inferred size. */
function inferShape(x: Tensor, shape: number[]): number[] {
  const open = shape.indexOf(-1);
  if (open < 0) return shape;
  const known = shape.reduce((n, d, i) => (i === open ? n : n * d), 1);
  const rest = x.size / known;
  if (shape.lastIndexOf(-1) !== open || !Number.isInteger(rest)) {
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `reshape: [${shape.join(", ")}] leaves no size for −1 that gives the ${x.size} elements of ${formatShape(x.shape)}`,
    );
  }
  return shape.map((d) => (d === -1 ? rest : d));
}
