/**
 * Tensors: handles, lifetimes, autograd and values. The methods that record operations are in files by kind, such as
 * `elementwise.ts`; `create.ts` creates tensors from values.
 */
import { checkFlag, refuse } from "../arguments/check.js";
import { resolveDevice, type Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import { direct, lastMade, session } from "../native/binding.js";
import { readTensor } from "../native/reads.js";
import { removeFromScope, keep, noGrad, addToScope } from "./scope.js";
import { checkTensor } from "./arguments.js";
import {
  BLOCK_DTYPES,
  HANDLE,
  isBlock,
  recordOp,
  wrapHandle,
  registerTensor,
  type Description,
  type DType,
} from "./operand.js";
import { cumulative, type Cumulative } from "./cumulative.js";
import { drawing, type Drawing } from "./drawing.js";
import { elementwise, type Elementwise } from "./elementwise.js";
import { indexing, type Indexing } from "./indexing.js";
import { layout, type Layout } from "./layout.js";
import { addMethods } from "./methods.js";
import { products, type Products } from "./products.js";
import { reductions, type Reductions } from "./reductions.js";
import { sorting, type Sorting } from "./sorting.js";

/** @internal */
export { isBlock } from "./operand.js";
export {
  isTensor,
  recordOp,
  recordOps,
  wrapHandle,
  type BlockDType,
  type DType,
  type FloatDType,
} from "./operand.js";

/** Tensors that count as module parameters: created with `requiresGrad`, or with `requiresGrad` set to true once. */
const parameters = new WeakSet<Tensor>();

const DTYPES: readonly DType[] = ["f32", "f16", "bf16", "i32", ...BLOCK_DTYPES];
/** Device labels by the session's numbers. */
let devices: Exclude<Device, "auto">[] = [];

function describeHandle(id: number): Description {
  const description = lastMade[0] === id ? lastMade : [id, ...session().describe(id)];
  // Indexing is faster than destructuring, which uses an iterator.
  const [dtype, device] = [description[1] as number, description[2] as number];
  const shape: number[] = [];
  for (let i = 0; i < (description[3] as number); i++) shape.push(description[4 + i] as number);
  if (device >= devices.length) devices = session().deviceLabels() as typeof devices;
  return { shape, dtype: DTYPES[dtype] as DType, device: devices[device] as Exclude<Device, "auto"> };
}

/** The methods that record operations, which are in files by kind; `addMethods` adds them to the class. */
// eslint-disable-next-line @typescript-eslint/no-unsafe-declaration-merging
export interface Tensor
  extends Layout, Elementwise, Reductions, Indexing, Sorting, Cumulative, Products, Drawing {}

/**
 * A contiguous array on a device, with autograd. Shapes and dtypes are checked when an operation is called; computation
 * is deferred until a value is read.
 *
 * Operands of elementwise functions broadcast by NumPy's rule: from the last dimension, sizes are equal or one of them
 * is 1; a number acts as a scalar tensor. Floats of any storage, and a float with i32, compute in f32 and return f32;
 * two i32 tensors can be compared, but arithmetic on them throws `ERR_DTYPE`. Operations are differentiable unless they
 * say otherwise.
 *
 * A tensor lives until `dispose()`, until the end of the `scope` that created it and did not return it, or until it is
 * garbage-collected. Operations throw `ERR_DISPOSED` after that, `ERR_DEVICE_MISMATCH` for operands on different
 * devices, and `ERR_OUT_OF_MEMORY`.
 */
export class Tensor {
  /** The sizes of its dimensions, [] for a scalar. */
  readonly shape: readonly number[];
  /** The storage of its elements. */
  readonly dtype: DType;
  /** The device of its elements. */
  readonly device: Exclude<Device, "auto">;
  #id: number;
  #disposed = false;
  #watched = false;

  static {
    addMethods(Tensor, layout, elementwise, reductions, indexing, sorting, cumulative, products, drawing);
    registerTensor(
      (id, known) => new Tensor(HANDLE, id, known),
      (value) => #id in value,
    );
  }

  /** @internal Wraps a handle of the session; the innermost scope owns it. */
  constructor(handle: typeof HANDLE, id: number, known?: Description) {
    if (handle !== HANDLE) {
      throw new LowrankError(
        "ERR_OPTION",
        `new ${new.target.name}: a tensor is made by tensor(), zeros(), an operation and the like`,
      );
    }
    this.#id = id;
    const { shape, dtype, device } = known ?? describeHandle(id);
    this.shape = shape;
    this.dtype = dtype;
    this.device = device;
    addToScope(this);
  }

  /** @internal Its handle in the session. */
  get id(): number {
    if (this.#disposed) {
      throw new LowrankError(
        "ERR_DISPOSED",
        `a tensor of shape [${this.shape.join(", ")}] is used after dispose()`,
      );
    }
    return this.#id;
  }

  /** The number of elements. */
  get size(): number {
    return this.shape.reduce((n, d) => n * d, 1);
  }

  /** Whether it was disposed of, by `dispose()` or at the end of a scope. */
  get disposed(): boolean {
    return this.#disposed;
  }

  /**
   * Whether gradients are computed for it. It can be set for a leaf; for the result of an operation it says whether it
   * depends on a leaf that requires gradients. A tensor set to true once is a parameter of the module that contains it,
   * frozen or not.
   */
  get requiresGrad(): boolean {
    return session().requiresGrad(this.id);
  }

  /** Throws `ERR_DTYPE` unless this is f32, `ERR_NO_GRADIENT` for the result of an operation. */
  set requiresGrad(on: boolean) {
    checkFlag("requiresGrad", "the value", on);
    session().setRequiresGrad(this.id, on);
    if (on) parameters.add(this);
  }

  /** The gradient accumulated by `backward`, f32 in this tensor's shape, or null. Returns a new handle each time. */
  get grad(): Tensor | null {
    const id = session().grad(this.id);
    return id === null || id === undefined ? null : wrapHandle(id, this);
  }

  /** Throws `ERR_SHAPE_MISMATCH` for a gradient of another shape, `ERR_OPTION`. */
  set grad(gradient: Tensor | null) {
    const checked = gradient === null ? undefined : checkTensor("grad", "the gradient", gradient);
    session().setGrad(this.id, checked?.id);
  }

  // Autograd.
  /**
   * Computes gradients of this tensor and adds them to the `grad` of every leaf that requires one, then frees the
   * tensors saved for backward. `gradient` has this tensor's shape, and is optional for a scalar. Throws
   * `ERR_NO_GRADIENT` where this does not require a gradient or backward has already run, `ERR_MODIFIED` where a saved
   * value was overwritten, `ERR_SHAPE_MISMATCH`, `ERR_OPTION`.
   */
  backward(gradient?: Tensor): void {
    const checked = gradient === undefined ? undefined : checkTensor("backward", "gradient", gradient);
    session().backward(this.id, checked?.id);
  }
  /** Returns a tensor that shares the values, without gradients. */
  detach(): Tensor {
    return wrapHandle(session().detach(this.id), this);
  }
  /**
   * Returns the values on another device or in another dtype, or this tensor if nothing changes. Gradients do not flow
   * between devices. Half types round to nearest; i32 truncates and has no gradient; block formats are unpacked. Throws
   * `ERR_DTYPE` for a block format as target, since models are quantised on loading; `ERR_OPTION` for an unknown name,
   * `ERR_NO_GPU`.
   */
  to(target: Device | DType): Tensor {
    if (target === "f32" || target === "f16" || target === "bf16" || target === "i32") {
      return target === this.dtype ? this : recordOp(() => session().cast(this.id, target));
    }
    if (isBlock(target)) {
      if (target === this.dtype) return this;
      throw new LowrankError(
        "ERR_DTYPE",
        `to: a tensor of ${this.dtype} is not quantised to ${target}; loadModel's quantize does it to a model's layers`,
      );
    }
    if (typeof target !== "string" || !/^(auto|(meta:)?(cpu|gpu(:\d+)?))$/.test(target)) {
      refuse(
        "to",
        "the target",
        "a dtype (f32, f16, bf16, i32) or a device (auto, cpu, gpu, gpu:N, meta:cpu, meta:gpu)",
        target,
      );
    }
    const device = resolveDevice(target);
    return device === this.device ? this : recordOp(() => session().toDevice(this.id, device));
  }
  /**
   * Overwrites this tensor's elements with those in `from`, in place and without a gradient (`torch.Tensor.copy_` under
   * `no_grad`). Throws `ERR_SHAPE_MISMATCH` and `ERR_DTYPE` unless both have the same shape and dtype, `ERR_OPTION`.
   */
  copy(from: Tensor): this {
    const { id, dtype } = checkTensor("copy", "from", from);
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
   * Reads the values in row-major order, after running everything they depend on: a Float32Array or an Int32Array, a
   * Uint16Array of bits for f16 and bf16, an unpacked Float32Array for block formats. Rejects with `ERR_OPTION` on a
   * meta device, with `ERR_DEVICE_LOST`.
   */
  async data(): Promise<Float32Array | Int32Array | Uint16Array> {
    if (isBlock(this.dtype)) {
      const wide = noGrad(() => this.to("f32"));
      return wide.data().finally(() => wide.dispose());
    }
    const { buffer, byteOffset, byteLength } = await readTensor(this.id);
    if (this.dtype === "f32") return new Float32Array(buffer, byteOffset, byteLength / 4);
    if (this.dtype === "i32") return new Int32Array(buffer, byteOffset, byteLength / 4);
    return new Uint16Array(buffer, byteOffset, byteLength / 2);
  }
  /** Reads the value of a one-element tensor. Rejects with `ERR_SHAPE_MISMATCH` for any other size, and as `data`. */
  async item(): Promise<number> {
    if (this.size !== 1) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `item: a tensor of shape [${this.shape.join(", ")}] has ${this.size} values`,
      );
    }
    const wide = this.dtype === "f32" || this.dtype === "i32" ? this : this.to("f32");
    return (await wide.data())[0] as number;
  }

  /** Frees it at once, except for values that `backward` still needs. Repeated calls do nothing. */
  dispose(): void {
    removeFromScope(this);
    const id = this.releaseHandle();
    if (id !== undefined) direct().release(id);
  }

  /**
   * @internal Marks it as disposed and returns its handle, which the caller releases; undefined if it was disposed
   * before.
   */
  releaseHandle(): number | undefined {
    if (this.#disposed) return undefined;
    this.#disposed = true;
    return this.#id;
  }

  /** @internal From now on, frees it when it is garbage-collected. */
  watch(): void {
    if (this.#watched || this.#disposed) return;
    this.#watched = true;
    direct().watch(this.#id, this);
  }

  /** Calls `dispose()`, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** @internal Whether a module lists it as a parameter. */
export function isParameter(tensor: Tensor): boolean {
  return parameters.has(tensor);
}

/** @internal Makes `tensor` a parameter: it outlives scopes, and requires a gradient unless frozen. */
export function makeParameter(tensor: Tensor, requiresGrad = tensor.dtype === "f32"): Tensor {
  keep(tensor);
  if (requiresGrad) tensor.requiresGrad = true;
  parameters.add(tensor);
  return tensor;
}
