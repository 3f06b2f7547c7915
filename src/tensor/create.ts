/** Creates tensors: from host values, filled with one value, or random. */
import * as argument from "../arguments/check.js";
import { resolveDevice, type Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import { drawStream } from "./random.js";
import { type BlockDType, type DType, type Tensor, wrapHandle } from "./tensor.js";

/** Nested arrays, one level per dimension; all arrays of a level must have equal lengths. */
export type NestedArray = readonly (number | NestedArray)[];
/** Values in row-major order. A Float64Array is rounded to f32; a Uint16Array contains the bits of f16 or bf16. */
export type TypedArray = Float32Array | Float64Array | Int32Array | Uint16Array;
/** Data for `tensor`: a number (shape []), nested arrays, or a typed array. */
export type TensorData = number | NestedArray | TypedArray;

/** Options for creating tensors. */
export interface TensorOptions {
  /** Sizes of the dimensions, whose product is the number of values. Default: the shape of the nested arrays, or [n]. */
  shape?: readonly number[] | undefined;
  /** The element type. The default depends on the function. */
  dtype?: Exclude<DType, BlockDType> | undefined;
  /** The device of the tensor. Default: the default device. */
  device?: Device | undefined;
  /** Whether the tensor requires a gradient (f32 only), which makes it a parameter of a module that holds it. Default: false. */
  requiresGrad?: boolean | undefined;
}

const OPTIONS = ["shape", "dtype", "device", "requiresGrad"] as const;
const DTYPES = ["f32", "f16", "bf16", "i32"] as const;

/** Validates the options of `where`. `device` is validated when it is resolved. */
function checkTensorOptions(
  where: string,
  options: TensorOptions | undefined,
  known: readonly (keyof TensorOptions)[],
): TensorOptions {
  const { shape, dtype, requiresGrad, ...rest } = argument.checkKnownOptions(where, options, known);
  if (shape !== undefined) argument.checkList(where, "shape", shape, argument.checkWhole);
  if (dtype !== undefined) argument.checkChoice(where, "dtype", dtype, DTYPES);
  if (requiresGrad !== undefined) argument.checkFlag(where, "requiresGrad", requiresGrad);
  return { ...rest, shape, dtype, requiresGrad };
}

/** @internal Validates a shape and the other options. */
export function checkShapeAndOptions(
  where: string,
  shape: readonly number[],
  options: Omit<TensorOptions, "shape"> | undefined,
): TensorOptions {
  argument.checkList(where, "shape", shape, argument.checkWhole);
  return checkTensorOptions(where, options, OPTIONS.slice(1));
}

/**
 * Creates a tensor of `data`: a number, nested arrays, or a typed array (Float32Array, Float64Array, Int32Array; a
 * Uint16Array contains the bits of f16 or bf16 and needs `dtype`). Numbers become f32, an Int32Array i32. Equivalent to
 * `torch.tensor`.
 *
 * Throws `ERR_OPTION` for a value that is not a number, with its index; `ERR_SHAPE_MISMATCH` if nested arrays have unequal
 * lengths or `shape` needs another number of values; `ERR_DTYPE` if the data cannot be converted to `dtype`.
 */
export function tensor(data: TensorData, options?: TensorOptions): Tensor {
  const given = checkTensorOptions("tensor", options, OPTIONS);
  const { values, shape } = flatten(data);
  const dtype = given.dtype ?? chooseDType(values);
  const sizes = given.shape ?? shape;
  const device = resolveDevice(given.device);
  const bytes = encodeValues(values, dtype);
  const id = session().tensor(device, [...sizes], dtype, bytes, given.requiresGrad ?? false);
  const created = wrapHandle(id, { shape: [...sizes], dtype, device });
  // The setter also registers the tensor as a parameter.
  if (given.requiresGrad === true) created.requiresGrad = true;
  return created;
}

function chooseDType(values: ArrayLike<number>): "f32" | "i32" {
  if (values instanceof Int32Array) return "i32";
  if (values instanceof Uint16Array) {
    throw new LowrankError(
      "ERR_DTYPE",
      'tensor: a Uint16Array holds bits; say which with dtype: "f16" or "bf16"',
    );
  }
  return "f32";
}

/** The maximum nesting; deeper arrays must contain themselves. */
const DEEPEST = 64;

function flatten(data: TensorData): { values: ArrayLike<number>; shape: number[] } {
  if (typeof data === "number") return { values: [data], shape: [] };
  const isTyped = [Float32Array, Float64Array, Int32Array, Uint16Array].some((Type) => data instanceof Type);
  if (isTyped) return { values: data as TypedArray, shape: [(data as TypedArray).length] };
  if (!Array.isArray(data)) {
    argument.refuse(
      "tensor",
      "data",
      "a number, nested arrays, or a Float32Array, Float64Array, Int32Array or Uint16Array",
      data,
    );
  }
  const shape: number[] = [];
  for (let level: unknown = data; Array.isArray(level); level = level[0]) {
    shape.push(level.length);
    if (shape.length > DEEPEST)
      argument.refuse("tensor", "data", `arrays nested at most ${DEEPEST} deep`, data);
  }
  const values: number[] = [];
  const walk = (level: unknown, depth: number, place: readonly number[]): void => {
    if (typeof level === "number") {
      if (depth !== shape.length) refuseRagged();
      values.push(level);
    } else if (Array.isArray(level)) {
      if (level.length !== shape[depth]) refuseRagged();
      for (let i = 0; i < level.length; i++) walk(level[i], depth + 1, [...place, i]);
    } else {
      argument.refuse("tensor", `data${place.map((i) => `[${i}]`).join("")}`, "a number", level);
    }
  };
  walk(data, 0, []);
  return { values, shape };
}

function refuseRagged(): never {
  throw new LowrankError("ERR_SHAPE_MISMATCH", "tensor: nested arrays of unequal lengths have no shape");
}

function encodeValues(values: ArrayLike<number>, dtype: DType): Uint8Array {
  let typed: Float32Array | Int32Array | Uint16Array;
  if (dtype === "i32") typed = values instanceof Int32Array ? values : truncateValues(values);
  else if (dtype === "f32") typed = values instanceof Float32Array ? values : Float32Array.from(values);
  else if (values instanceof Uint16Array) typed = values;
  else {
    throw new LowrankError(
      "ERR_DTYPE",
      `tensor: numbers become f32; make ${dtype} of them with to("${dtype}")`,
    );
  }
  return new Uint8Array(typed.buffer, typed.byteOffset, typed.byteLength);
}

/** Converts values to i32, truncating fractions. */
function truncateValues(values: ArrayLike<number>): Int32Array {
  return Int32Array.from(values, (v, i) => {
    if (Math.abs(v) < 2 ** 31) return v;
    return argument.refuse("tensor", `value ${i} of data`, "within the range of i32", v);
  });
}

/** Creates a tensor of `shape` filled with `value`; f32 by default. Throws `ERR_OPTION`, `ERR_OUT_OF_MEMORY`. */
export function full(
  shape: readonly number[],
  value: number,
  options?: Omit<TensorOptions, "shape">,
): Tensor {
  const given = checkShapeAndOptions("full", shape, options);
  argument.checkNumberThat(
    "full",
    "value",
    value,
    (v) => given.dtype !== "i32" || Math.abs(v) < 2 ** 31,
    "a number of its dtype",
  );
  return createConstant(shape, value, given);
}

/** Creates a tensor of `shape` filled with 0; f32 by default. Throws like `full`. */
export function zeros(shape: readonly number[], options?: Omit<TensorOptions, "shape">): Tensor {
  return createConstant(shape, 0, checkShapeAndOptions("zeros", shape, options));
}

/** Creates a tensor of `shape` filled with 1; f32 by default. Throws like `full`. */
export function ones(shape: readonly number[], options?: Omit<TensorOptions, "shape">): Tensor {
  return createConstant(shape, 1, checkShapeAndOptions("ones", shape, options));
}

function createConstant(
  shape: readonly number[],
  value: number,
  { device, dtype, requiresGrad }: TensorOptions,
): Tensor {
  const created = wrapHandle(session().full(resolveDevice(device), [...shape], dtype ?? "f32", value));
  if (requiresGrad === true) created.requiresGrad = true;
  return created;
}

/**
 * Creates the values from `start` (default 0) up to but excluding `end`, in increments of `step` (default 1), of shape
 * [⌈(end − start) / step⌉]. The default dtype is i32 if all values are whole, else f32. Equivalent to `torch.arange`, but
 * `end` comes first. Throws `ERR_OPTION` for arguments that are not finite and for a step of 0.
 */
export function arange(
  end: number,
  options?: Omit<TensorOptions, "shape"> & { start?: number | undefined; step?: number | undefined },
): Tensor {
  const {
    start = 0,
    step = 1,
    ...rest
  } = argument.checkKnownOptions("arange", options, [...OPTIONS.slice(1), "start", "step"] as never);
  const given = checkTensorOptions("arange", rest, OPTIONS.slice(1));
  for (const [name, value] of Object.entries({ end, start, step })) {
    argument.checkNumberThat("arange", name, value, Number.isFinite, "a finite number");
  }
  argument.checkNumberThat("arange", "step", step, (s) => s !== 0, "another number than 0");
  const size = Math.max(0, Math.ceil((end - start) / step));
  argument.checkNumberThat(
    "arange",
    "end",
    end,
    () => size < 2 ** 31,
    `such that there are fewer than 2³¹ values`,
  );
  const values = Array.from({ length: size }, (_, i) => start + i * step);
  const dtype = given.dtype ?? (values.every(Number.isInteger) ? "i32" : "f32");
  return createConverted(dtype === "i32" ? truncateValues(values) : Float32Array.from(values), [size], {
    ...given,
    dtype,
  });
}

/** Creates a tensor of host values in the requested dtype. */
function createConverted(
  values: Float32Array | Int32Array,
  shape: readonly number[],
  options: Omit<TensorOptions, "shape"> = {},
): Tensor {
  const place = options.device === undefined ? {} : { device: options.device };
  return finishTensor(tensor(values, { shape, ...place }), options);
}

/** @internal Converts `wide` to the requested dtype and sets `requiresGrad`. */
export function finishTensor(wide: Tensor, { dtype, requiresGrad }: Omit<TensorOptions, "shape">): Tensor {
  const created = dtype === undefined || dtype === wide.dtype ? wide : wide.to(dtype);
  if (created !== wide) wide.dispose();
  if (requiresGrad === true) created.requiresGrad = true;
  return created;
}

/**
 * Creates a tensor of `shape` with values uniform on [0, 1), using the generator seeded by `manualSeed`; f32 by default.
 * Throws `ERR_OPTION`, `ERR_OUT_OF_MEMORY`.
 */
export function rand(shape: readonly number[], options?: Omit<TensorOptions, "shape">): Tensor {
  return drawUniform(shape, 0, 1, checkShapeAndOptions("rand", shape, options));
}

/**
 * Creates a tensor of `shape` with normally distributed values (mean 0, variance 1), using the generator seeded by
 * `manualSeed`; f32 by default. Throws `ERR_OPTION`, `ERR_OUT_OF_MEMORY`.
 */
export function randn(shape: readonly number[], options?: Omit<TensorOptions, "shape">): Tensor {
  return drawNormal(shape, 1, checkShapeAndOptions("randn", shape, options));
}

/** @internal Draws values uniform on [low, high) on the device, without a host copy. */
export function drawUniform(
  shape: readonly number[],
  low: number,
  high: number,
  options: Omit<TensorOptions, "shape"> = {},
): Tensor {
  const device = resolveDevice(options.device);
  const id = session().randomUniform(device, [...shape], ...drawStream(), low, high);
  return finishTensor(wrapHandle(id), options);
}

/** @internal Draws normally distributed values with mean 0 on the device, without a host copy. */
export function drawNormal(
  shape: readonly number[],
  deviation: number,
  options: Omit<TensorOptions, "shape"> = {},
): Tensor {
  const device = resolveDevice(options.device);
  const id = session().randomNormal(device, [...shape], ...drawStream(), deviation);
  return finishTensor(wrapHandle(id), options);
}
