/** Tensors; `create.ts` makes them of values. Shapes and dtypes are checked when called; nothing runs until a value is read. */
import { resolveDevice, type Device } from "./device.js";
import { LowrankError } from "./errors.js";
import { session, settled } from "./native.js";
import { nextDropout } from "./random.js";
import { disown, enter, keep, own } from "./scope.js";

export type DType = "f32" | "f16" | "bf16" | "i32";
/**
 * Frees handles that nobody disposed; a net, never relied upon. Tensors of a scope that surely ends stay out of it:
 * what it watches outlives V8's small collections, 25 KB of a small model's step.
 */
const net = new FinalizationRegistry<number>((id) => session().dispose([id]));

/** Tensors that a module holds as parameters: made with `requiresGrad`, or told to ask for a gradient. */
const parameters = new WeakSet<Tensor>();

interface Description {
  shape: readonly number[];
  dtype: DType;
  device: Exclude<Device, "auto">;
}

const DTYPES: readonly DType[] = ["f32", "f16", "bf16", "i32"];
/** Devices by the session's numbers. */
let devices: Exclude<Device, "auto">[] = [];

function described(id: number): Description {
  const shape = session().describe(id);
  const [dtype, device] = [shape.shift() as number, shape.shift() as number];
  if (device >= devices.length) devices = session().deviceLabels() as typeof devices;
  return { shape, dtype: DTYPES[dtype] as DType, device: devices[device] as Exclude<Device, "auto"> };
}

/** A contiguous array on a device, and its place on the tape. */
export class Tensor {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly device: Exclude<Device, "auto">;
  #id: number;
  #disposed = false;
  #watched = false;

  /** @internal Wraps a handle of the session; the innermost scope owns it. */
  constructor(id: number, known?: Description) {
    this.#id = id;
    const { shape, dtype, device } = known ?? described(id);
    this.shape = shape;
    this.dtype = dtype;
    this.device = device;
    own(this);
  }

  /** @internal The session's number for it. */
  get id(): number {
    if (this.#disposed) {
      throw new LowrankError(
        "ERR_DISPOSED",
        `a tensor of shape [${this.shape.join(", ")}] is used after dispose()`,
      );
    }
    return this.#id;
  }

  /** Number of elements. */
  get size(): number {
    return this.shape.reduce((n, d) => n * d, 1);
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  get requiresGrad(): boolean {
    return session().requiresGrad(this.id);
  }

  set requiresGrad(on: boolean) {
    session().setRequiresGrad(this.id, on);
    if (on) parameters.add(this);
  }

  /** The gradient that `backward` has added up, or null. A new handle each time. */
  get grad(): Tensor | null {
    const id = session().grad(this.id);
    return id === null || id === undefined ? null : new Tensor(id, this);
  }

  set grad(gradient: Tensor | null) {
    session().setGrad(this.id, gradient?.id);
  }

  // Elementwise, with broadcasting.
  add(other: Tensor | number): Tensor {
    return this.#binary("add", other);
  }
  sub(other: Tensor | number): Tensor {
    return this.#binary("sub", other);
  }
  mul(other: Tensor | number): Tensor {
    return this.#binary("mul", other);
  }
  div(other: Tensor | number): Tensor {
    return this.#binary("div", other);
  }
  pow(other: Tensor | number): Tensor {
    return this.#binary("pow", other);
  }
  maximum(other: Tensor | number): Tensor {
    return this.#binary("maximum", other);
  }
  minimum(other: Tensor | number): Tensor {
    return this.#binary("minimum", other);
  }
  /** 1 where equal, 0 elsewhere, as i32; so are `lt` and `gt`. */
  eq(other: Tensor | number): Tensor {
    return this.#binary("eq", other);
  }
  lt(other: Tensor | number): Tensor {
    return this.#binary("lt", other);
  }
  gt(other: Tensor | number): Tensor {
    return this.#binary("gt", other);
  }
  neg(): Tensor {
    return this.#unary("neg");
  }
  exp(): Tensor {
    return this.#unary("exp");
  }
  log(): Tensor {
    return this.#unary("log");
  }
  sqrt(): Tensor {
    return this.#unary("sqrt");
  }
  abs(): Tensor {
    return this.#unary("abs");
  }
  relu(): Tensor {
    return this.#unary("relu");
  }
  silu(): Tensor {
    return this.#unary("silu");
  }
  tanh(): Tensor {
    return this.#unary("tanh");
  }
  sigmoid(): Tensor {
    return this.#unary("sigmoid");
  }
  /** x·Φ(x), by erf, or by its tanh form as GPT-2 has it. */
  gelu({ approximate = "none" }: { approximate?: "none" | "tanh" } = {}): Tensor {
    return this.#unary(approximate === "tanh" ? "gelu_tanh" : "gelu");
  }
  clamp(low: number, high: number): Tensor {
    return made(() => session().clamp(this.id, low, high));
  }
  /** This where `condition` is not 0, `other` elsewhere. */
  where(condition: Tensor, other: Tensor | number): Tensor {
    return this.#with(other, (b) => session().where(condition.id, this.id, b));
  }
  /** silu(this) · up: the product of a gated MLP. */
  siluMul(up: Tensor): Tensor {
    return made(() => session().siluMul(this.id, up.id));
  }
  /** Zeroes each element with probability `p` and scales the others by 1 / (1 − p). */
  dropout(p = 0.5): Tensor {
    return made(() => session().dropout(this.id, p, ...nextDropout()));
  }

  // Reductions.
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
    return made(() => session().softmax(this.id, this.#dim("softmax", dim)));
  }
  logSoftmax(dim = -1): Tensor {
    return made(() => session().logSoftmax(this.id, this.#dim("logSoftmax", dim)));
  }

  /** Batched matrix product, leading dimensions broadcast; one-dimensional operands as in PyTorch. */
  matmul(other: Tensor, { transA = false, transB = false } = {}): Tensor {
    return made(() => session().matmul(this.id, other.id, transA, transB));
  }

  // Layout. All are copies but `reshape`.
  /** The same elements under another shape; one size may be −1. */
  reshape(...shape: number[] | [readonly number[]]): Tensor {
    const sizes = completed(this, shape.flat() as number[]);
    return made(() => session().reshape(this.id, sizes));
  }
  flatten(start = 0, end = -1): Tensor {
    const rank = this.shape.length;
    if (rank === 0) return this.reshape(1);
    const [from, to] = [this.#dim("flatten", start), this.#dim("flatten", end)];
    const merged = this.shape.slice(from, to + 1).reduce((n, d) => n * d, 1);
    return this.reshape([...this.shape.slice(0, from), merged, ...this.shape.slice(to + 1)]);
  }
  squeeze(dim?: number): Tensor {
    if (dim === undefined) return this.reshape(this.shape.filter((d) => d !== 1));
    const at = this.#dim("squeeze", dim);
    return this.reshape(this.shape.filter((d, i) => i !== at || d !== 1));
  }
  unsqueeze(dim: number): Tensor {
    const at = dimension("unsqueeze", dim, this.shape.length + 1);
    return this.reshape([...this.shape.slice(0, at), 1, ...this.shape.slice(at)]);
  }
  permute(...dims: number[] | [readonly number[]]): Tensor {
    const order = (dims.flat() as number[]).map((d) => this.#dim("permute", d));
    return made(() => session().permute(this.id, order));
  }
  transpose(a = -2, b = -1): Tensor {
    const order = this.shape.map((_, i) => i);
    const [i, j] = [this.#dim("transpose", a), this.#dim("transpose", b)];
    [order[i], order[j]] = [j, i];
    return this.permute(order);
  }
  /** Elements `start` up to `end` of a dimension; negative places count from its end. */
  slice(dim: number, start: number, end?: number): Tensor {
    const at = this.#dim("slice", dim);
    const size = this.shape[at] as number;
    const place = (p: number): number => Math.min(Math.max(p < 0 ? p + size : p, 0), size);
    return made(() => session().slice(this.id, at, place(start), place(end ?? size)));
  }
  concat(others: Tensor | readonly Tensor[], dim = 0): Tensor {
    const all = [this, ...(others instanceof Tensor ? [others] : others)];
    return made(() =>
      session().concat(
        all.map((t) => t.id),
        this.#dim("concat", dim),
      ),
    );
  }
  /** Joins tensors of one shape along a new dimension. */
  stack(others: Tensor | readonly Tensor[], dim = 0): Tensor {
    const rest = others instanceof Tensor ? [others] : others;
    return this.unsqueeze(dim).concat(
      rest.map((t) => t.unsqueeze(dim)),
      dim,
    );
  }
  /** The elements along `dim` at `index` (i32), as PyTorch's gather. */
  gather(dim: number, index: Tensor): Tensor {
    return made(() => session().gather(this.id, this.#dim("gather", dim), index.id));
  }

  /** Cross-entropy of logits [..., V] against i32 targets [...]. */
  crossEntropy(
    targets: Tensor,
    { ignoreIndex = -100, labelSmoothing = 0, reduction = "mean" as "mean" | "sum" | "none" } = {},
  ): Tensor {
    return made(() => session().crossEntropy(this.id, targets.id, ignoreIndex, labelSmoothing, reduction));
  }

  // The tape.
  /** Adds the gradient of this (times `gradient`) to the `grad` of every leaf that asks for one. */
  backward(gradient?: Tensor): void {
    session().backward(this.id, gradient?.id);
  }
  detach(): Tensor {
    return new Tensor(session().detach(this.id), this);
  }
  /** The same values on another device, or in another dtype. */
  to(target: Device | DType): Tensor {
    if (target === "f32" || target === "f16" || target === "bf16" || target === "i32") {
      return target === this.dtype ? this : made(() => session().cast(this.id, target));
    }
    const device = resolveDevice(target);
    return device === this.device ? this : made(() => session().toDevice(this.id, device));
  }
  /** Writes the elements of `from` over this, in place. */
  copy(from: Tensor): this {
    session().assign(this.id, from.id);
    return this;
  }

  // Values.
  /** The values; f16 and bf16 as their bits. */
  async data(): Promise<Float32Array | Int32Array | Uint16Array> {
    const { buffer, byteOffset, byteLength } = settled((await session().read(this.id)) as Uint8Array);
    if (this.dtype === "f32") return new Float32Array(buffer, byteOffset, byteLength / 4);
    if (this.dtype === "i32") return new Int32Array(buffer, byteOffset, byteLength / 4);
    return new Uint16Array(buffer, byteOffset, byteLength / 2);
  }
  /** The value of a tensor with one element. */
  async item(): Promise<number> {
    if (this.size !== 1) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `item: a tensor of shape [${this.shape.join(", ")}] has ${this.size} values`,
      );
    }
    const whole = this.dtype === "f32" || this.dtype === "i32" ? this : this.to("f32");
    return (await whole.data())[0] as number;
  }

  dispose(): void {
    disown(this);
    const id = this.leave();
    if (id !== undefined) session().dispose([id]);
  }

  /** @internal Disposes of it but for the session's part, whose number it gives, unless it has none any more. */
  leave(): number | undefined {
    if (this.#disposed) return undefined;
    this.#disposed = true;
    if (this.#watched) net.unregister(this);
    return this.#id;
  }

  /** @internal From now on it is freed when nothing refers to it. */
  watch(): void {
    if (this.#watched || this.#disposed) return;
    this.#watched = true;
    net.register(this, this.#id, this);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #dim(op: string, dim: number): number {
    return dimension(op, dim, this.shape.length);
  }

  #unary(name: string): Tensor {
    return made(() => session().unary(name, this.id));
  }

  #binary(name: string, other: Tensor | number): Tensor {
    return this.#with(other, (b) => session().binary(name, this.id, b));
  }

  /** Runs `op` with the handle of `other`; one made of a number does not outlive it. */
  #with(other: Tensor | number, op: (other: number) => number): Tensor {
    if (other instanceof Tensor) return made(() => op(other.id));
    const bytes = new Uint8Array(Float32Array.of(other).buffer);
    const scalar = session().tensor(this.device, [], "f32", bytes, false);
    try {
      return made(() => op(scalar));
    } finally {
      session().dispose([scalar]);
    }
  }

  #reduce(dim: number | undefined, keepDim: boolean, op: (dim: number | undefined) => number): Tensor {
    const at = dim === undefined ? undefined : this.#dim("reduce", dim);
    const reduced = made(() => op(at));
    if (!keepDim) return reduced;
    const kept = reduced.reshape(this.shape.map((d, i) => (at === undefined || i === at ? 1 : d)));
    reduced.dispose();
    return kept;
  }
}

/** Runs an operation under the mode in force and wraps what it made. */
export function made(op: () => number): Tensor {
  enter();
  return new Tensor(op());
}

/** `made`, of an operation that makes several. */
export function madeAll(op: () => number[]): Tensor[] {
  enter();
  return op().map((id) => new Tensor(id));
}

/** @internal Whether a module lists it among its parameters. */
export function isParameter(tensor: Tensor): boolean {
  return parameters.has(tensor);
}

/** @internal Makes `tensor` a parameter: it outlives scopes, and asks for a gradient unless frozen. */
export function parameter(tensor: Tensor, requiresGrad = tensor.dtype === "f32"): Tensor {
  keep(tensor);
  if (requiresGrad) tensor.requiresGrad = true;
  parameters.add(tensor);
  return tensor;
}

/** A place counted from either end, checked. */
function dimension(op: string, dim: number, rank: number): number {
  const at = dim < 0 ? dim + rank : dim;
  if (!Number.isInteger(at) || at < 0 || at >= rank) {
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `${op}: there is no dimension ${dim} in a tensor of ${rank} dimensions`,
    );
  }
  return at;
}

function completed(tensor: Tensor, shape: number[]): number[] {
  const open = shape.indexOf(-1);
  if (open < 0) return shape;
  const known = shape.reduce((n, d, i) => (i === open ? n : n * d), 1);
  return shape.map((d, i) => (i === open ? Math.floor(tensor.size / Math.max(known, 1)) : d));
}
