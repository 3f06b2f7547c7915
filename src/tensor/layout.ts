/** The same elements in another layout. All are copies but `reshape` and what is made of it. */
import { session } from "../native.js";
import type { Tensor } from "../tensor.js";
import { dimension } from "./arguments.js";
import { made, Operand } from "./operand.js";

export abstract class Layout extends Operand {
  /** The same elements under another shape; one size may be −1. */
  reshape(...shape: number[] | [readonly number[]]): Tensor {
    const sizes = completed(this, shape.flat() as number[]);
    return made(() => session().reshape(this.id, sizes));
  }
  flatten(start = 0, end = -1): Tensor {
    const rank = this.shape.length;
    if (rank === 0) return this.reshape(1);
    const [from, to] = [
      dimension("flatten", start, this.shape.length),
      dimension("flatten", end, this.shape.length),
    ];
    const merged = this.shape.slice(from, to + 1).reduce((n, d) => n * d, 1);
    return this.reshape([...this.shape.slice(0, from), merged, ...this.shape.slice(to + 1)]);
  }
  squeeze(dim?: number): Tensor {
    if (dim === undefined) return this.reshape(this.shape.filter((d) => d !== 1));
    const at = dimension("squeeze", dim, this.shape.length);
    return this.reshape(this.shape.filter((d, i) => i !== at || d !== 1));
  }
  unsqueeze(dim: number): Tensor {
    const at = dimension("unsqueeze", dim, this.shape.length + 1);
    return this.reshape([...this.shape.slice(0, at), 1, ...this.shape.slice(at)]);
  }
  permute(...dims: number[] | [readonly number[]]): Tensor {
    const order = (dims.flat() as number[]).map((d) => dimension("permute", d, this.shape.length));
    return made(() => session().permute(this.id, order));
  }
  transpose(a = -2, b = -1): Tensor {
    const order = this.shape.map((_, i) => i);
    const [i, j] = [
      dimension("transpose", a, this.shape.length),
      dimension("transpose", b, this.shape.length),
    ];
    [order[i], order[j]] = [j, i];
    return this.permute(order);
  }
  /** Elements `start` up to `end` of a dimension; negative places count from its end. */
  slice(dim: number, start: number, end?: number): Tensor {
    const at = dimension("slice", dim, this.shape.length);
    const size = this.shape[at] as number;
    const place = (p: number): number => Math.min(Math.max(p < 0 ? p + size : p, 0), size);
    return made(() => session().slice(this.id, at, place(start), place(end ?? size)));
  }
  concat(others: Tensor | readonly Tensor[], dim = 0): Tensor {
    const all: Operand[] = [this, ...(others instanceof Operand ? [others] : others)];
    const at = dimension("concat", dim, this.shape.length);
    return made(() =>
      session().concat(
        all.map((t) => t.id),
        at,
      ),
    );
  }
  /** Joins tensors of one shape along a new dimension. */
  stack(others: Tensor | readonly Tensor[], dim = 0): Tensor {
    const rest = others instanceof Operand ? [others] : others;
    return this.unsqueeze(dim).concat(
      rest.map((t) => t.unsqueeze(dim)),
      dim,
    );
  }
}

function completed(tensor: Operand, shape: number[]): number[] {
  const open = shape.indexOf(-1);
  if (open < 0) return shape;
  const known = shape.reduce((n, d, i) => (i === open ? n : n * d), 1);
  return shape.map((d, i) => (i === open ? Math.floor(tensor.size / Math.max(known, 1)) : d));
}
