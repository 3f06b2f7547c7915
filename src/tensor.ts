/**
 * Tensors: their handles, lifetimes, place on the tape and values. What is computed with them stands in `tensor/`, by
 * kind; `create.ts` makes them of values. Shapes and dtypes are checked when called; nothing runs until a value is read.
 */
import { flag, refuse } from "./argument.js";
import { resolveDevice, type Device } from "./device.js";
import { LowrankError } from "./errors.js";
import { direct, lastMade, session } from "./native.js";
import { read } from "./reads.js";
import { disown, keep, noGrad, own } from "./scope.js";
import { tensorOf } from "./tensor/arguments.js";
import {
  BLOCK_DTYPES,
  HANDLE,
  isBlock,
  made,
  wrapped,
  wrapWith,
  type Description,
  type DType,
} from "./tensor/operand.js";
import { Drawing } from "./tensor/drawing.js";

/** @internal */
export { isBlock } from "./tensor/operand.js";
export {
  isTensor,
  made,
  madeAll,
  wrapped,
  type BlockDType,
  type DType,
  type FloatDType,
} from "./tensor/operand.js";

/** Tensors that a module holds as parameters: made with `requiresGrad`, or told to ask for a gradient. */
const parameters = new WeakSet<Tensor>();

const DTYPES: readonly DType[] = ["f32", "f16", "bf16", "i32", ...BLOCK_DTYPES];
/** Devices by the session's numbers. */
let devices: Exclude<Device, "auto">[] = [];

function described(id: number): Description {
  const made = lastMade[0] === id ? lastMade : [id, ...session().describe(id)];
  // By index: destructuring walks an iterator.
  const [dtype, device] = [made[1] as number, made[2] as number];
  const shape: number[] = [];
  for (let i = 0; i < (made[3] as number); i++) shape.push(made[4 + i] as number);
  if (device >= devices.length) devices = session().deviceLabels() as typeof devices;
  return { shape, dtype: DTYPES[dtype] as DType, device: devices[device] as Exclude<Device, "auto"> };
}

/**
 * A contiguous array on a device, and its place on the tape. Shapes and dtypes are checked when an operation is called;
 * nothing runs until a value is read.
 *
 * Operands of an elementwise function broadcast by NumPy's rule: from the last dimension on, sizes are equal or one of
 * them is 1; a number stands for a tensor of its value. Floats of any storage, and a float with i32, compute in f32 and give
 * f32; two of i32 are compared, and `ERR_DTYPE` in arithmetic. Gradients pass through what does not say otherwise.
 *
 * It lives until `dispose()`, until the end of the `scope` that made it and did not return it, or until nothing refers
 * to it. Operations throw `ERR_DISPOSED` after that, `ERR_DEVICE_MISMATCH` for operands on different devices, and
 * `ERR_OUT_OF_MEMORY`.
 */
export class Tensor extends Drawing {
  /** Sizes of its dimensions, [] of a scalar. */
  readonly shape: readonly number[];
  /** How its elements are stored. */
  readonly dtype: DType;
  /** Where it lives. */
  readonly device: Exclude<Device, "auto">;
  #id: number;
  #disposed = false;
  #watched = false;

  static {
    wrapWith(
      (id, known) => new Tensor(HANDLE, id, known),
      (value) => #id in value,
    );
  }

  /** @internal Wraps a handle of the session; the innermost scope owns it. */
  constructor(handle: typeof HANDLE, id: number, known?: Description) {
    super();
    if (handle !== HANDLE) {
      throw new LowrankError(
        "ERR_OPTION",
        `new ${new.target.name}: a tensor is made by tensor(), zeros(), an operation and the like`,
      );
    }
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

  /** Whether it was disposed, by `dispose()` or at the end of a scope. */
  get disposed(): boolean {
    return this.#disposed;
  }

  /**
   * Whether `backward` reaches it: that of a tensor which no operation made may be set, that of another tells whether it
   * depends on such a one. A tensor that was told to ask is a parameter of the module that holds it, frozen or not.
   */
  get requiresGrad(): boolean {
    return session().requiresGrad(this.id);
  }

  /** Throws `ERR_DTYPE` unless this is f32, `ERR_NO_GRADIENT` where an operation made it. */
  set requiresGrad(on: boolean) {
    flag("requiresGrad", "the value", on);
    session().setRequiresGrad(this.id, on);
    if (on) parameters.add(this);
  }

  /** The gradient that `backward` has added up, f32 of this one's shape, or null. A new handle each time. */
  get grad(): Tensor | null {
    const id = session().grad(this.id);
    return id === null || id === undefined ? null : wrapped(id, this);
  }

  /** Throws `ERR_SHAPE_MISMATCH` where the gradient has another shape, `ERR_OPTION`. */
  set grad(gradient: Tensor | null) {
    const of = gradient === null ? undefined : tensorOf("grad", "the gradient", gradient);
    session().setGrad(this.id, of?.id);
  }

  // The tape.
  /**
   * Adds the gradient of this (times `gradient`, of its shape, which only a scalar may lack) to the `grad` of every leaf
   * that asks for one, and frees what was kept for it. Throws `ERR_NO_GRADIENT` where there is none or it was taken before,
   * `ERR_MODIFIED` where a value that it reads was written
   * over, `ERR_SHAPE_MISMATCH`, `ERR_OPTION`.
   */
  backward(gradient?: Tensor): void {
    const of = gradient === undefined ? undefined : tensorOf("backward", "gradient", gradient);
    session().backward(this.id, of?.id);
  }
  /** The same values, not copied, through which no gradient goes. */
  detach(): Tensor {
    return wrapped(session().detach(this.id), this);
  }
  /**
   * The same values on another device, or in another dtype; this itself where it is so already. No gradient goes from one
   * device to another. Half types round to the nearest, i32 drops the fraction and has no gradient; a quantised weight is
   * unpacked. Throws `ERR_DTYPE` for a dtype of
   * blocks, since a model is quantised as it is loaded. Throws `ERR_OPTION` for a name of neither, `ERR_NO_GPU`.
   */
  to(target: Device | DType): Tensor {
    if (target === "f32" || target === "f16" || target === "bf16" || target === "i32") {
      return target === this.dtype ? this : made(() => session().cast(this.id, target));
    }
    if (isBlock(target)) {
      if (target === this.dtype) return this;
      throw new LowrankError(
        "ERR_DTYPE",
        `to: a tensor of ${this.dtype} is not quantised to ${target}; loadModel's quantize does it to a model's layers`,
      );
    }
    if (typeof target !== "string" || !/^(auto|cpu|gpu(:\d+)?|meta:(cpu|gpu))$/.test(target)) {
      refuse(
        "to",
        "the target",
        "a dtype (f32, f16, bf16, i32) or a device (auto, cpu, gpu, gpu:N, meta:cpu, meta:gpu)",
        target,
      );
    }
    const device = resolveDevice(target);
    return device === this.device ? this : made(() => session().toDevice(this.id, device));
  }
  /**
   * Writes the elements of `from` over this, in place and without a gradient (`torch.Tensor.copy_` under `no_grad`).
   * Throws `ERR_SHAPE_MISMATCH` unless both have one shape, `ERR_DTYPE` unless both have one dtype, `ERR_OPTION`.
   */
  copy(from: Tensor): this {
    const { id, dtype } = tensorOf("copy", "from", from);
    if (dtype !== this.dtype) {
      throw new LowrankError(
        "ERR_DTYPE",
        `copy: from is of ${dtype}, and what it is written over of ${this.dtype}; convert it with to("${this.dtype}")`,
      );
    }
    session().assign(this.id, id);
    return this;
  }

  // Values.
  /**
   * The values in row-major order, once all that they depend on has run: a Float32Array or an Int32Array, or a Uint16Array
   * of the bits of f16 or bf16; of a quantised weight a Float32Array of what it stands for. Rejects with `ERR_OPTION` on a meta device, with `ERR_DEVICE_LOST`.
   */
  async data(): Promise<Float32Array | Int32Array | Uint16Array> {
    if (isBlock(this.dtype)) {
      const wide = noGrad(() => this.to("f32"));
      return wide.data().finally(() => wide.dispose());
    }
    const { buffer, byteOffset, byteLength } = await read(this.id);
    if (this.dtype === "f32") return new Float32Array(buffer, byteOffset, byteLength / 4);
    if (this.dtype === "i32") return new Int32Array(buffer, byteOffset, byteLength / 4);
    return new Uint16Array(buffer, byteOffset, byteLength / 2);
  }
  /** The value of a tensor with one element. Rejects with `ERR_SHAPE_MISMATCH` where there are more or none, and as `data`. */
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

  /** Frees it at once, but for what `backward` still needs of it. What is disposed already stays so. */
  dispose(): void {
    disown(this);
    const id = this.leave();
    if (id !== undefined) direct().release(id);
  }

  /** @internal Disposes of it but for the session's part, whose number it gives, unless it has none any more. */
  leave(): number | undefined {
    if (this.#disposed) return undefined;
    this.#disposed = true;
    return this.#id;
  }

  /** @internal From now on it is freed when nothing refers to it. */
  watch(): void {
    if (this.#watched || this.#disposed) return;
    this.#watched = true;
    direct().watch(this.#id, this);
  }

  /** `dispose()`, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
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
