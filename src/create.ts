/** What makes tensors: of values on the host, of one value throughout, of random ones. */
import * as argument from "./argument.js";
import { resolveDevice, type Device } from "./device.js";
import { LowrankError } from "./errors.js";
import { session } from "./native.js";
import { nextDropout } from "./random.js";
import { type BlockDType, type DType, type Tensor, wrapped } from "./tensor.js";

/** Arrays in arrays, as deep as the tensor has dimensions; those of one level have one length. */
export type NestedArray = readonly (number | NestedArray)[];
/** Values in row-major order: a Float64Array is rounded to f32, a Uint16Array holds the bits of f16 or bf16. */
export type TypedArray = Float32Array | Float64Array | Int32Array | Uint16Array;
/** What `tensor` takes: one number (of shape []), nested arrays, or a typed array. */
export type TensorData = number | NestedArray | TypedArray;

/** The options of what makes tensors. */
export interface TensorOptions {
  /** Sizes of the dimensions, of as many elements as there are values; by default, those of the nested arrays, or [n]. */
  shape?: readonly number[] | undefined;
  /** How elements are stored; what is chosen unless it is given stands with each function. */
  dtype?: Exclude<DType, BlockDType> | undefined;
  /** The device of the tensor; the default device if omitted. */
  device?: Device | undefined;
  /** Whether it requires a gradient, which f32 alone may, and is a parameter of a module that holds it; false by default. */
  requiresGrad?: boolean | undefined;
}

const OPTIONS = ["shape", "dtype", "device", "requiresGrad"] as const;
const DTYPES = ["f32", "f16", "bf16", "i32"] as const;

/** The options of `where`, checked; `device` is when it is looked for. */
function checked(
  where: string,
  options: TensorOptions | undefined,
  known: readonly (keyof TensorOptions)[],
): TensorOptions {
  const { shape, dtype, requiresGrad, ...rest } = argument.options(where, options, known);
  if (shape !== undefined) argument.listOf(where, "shape", shape, argument.whole);
  if (dtype !== undefined) argument.oneOf(where, "dtype", dtype, DTYPES);
  if (requiresGrad !== undefined) argument.flag(where, "requiresGrad", requiresGrad);
  return { ...rest, shape, dtype, requiresGrad };
}

/** @internal The options of what is made of a shape: `checked`, and the shape. */
export function filled(
  where: string,
  shape: readonly number[],
  options: Omit<TensorOptions, "shape"> | undefined,
): TensorOptions {
  argument.listOf(where, "shape", shape, argument.whole);
  return checked(where, options, OPTIONS.slice(1));
}

/**
 * A tensor of `data`: a number, nested arrays, or a typed array (Float32Array, Float64Array, Int32Array; a Uint16Array
 * holds the bits of f16 or bf16 and needs `dtype`). Numbers become f32, an Int32Array i32. As `torch.tensor`.
 *
 * Throws `ERR_OPTION` for a value that is not a number, with its index, `ERR_SHAPE_MISMATCH` where nested arrays are of unequal
 * lengths or `shape` takes another number of values, `ERR_DTYPE` where `dtype` cannot be made of the data.
 */
export function tensor(data: TensorData, options?: TensorOptions): Tensor {
  const given = checked("tensor", options, OPTIONS);
  const { values, shape } = flattened(data);
  const dtype = given.dtype ?? natural(values);
  const sizes = given.shape ?? shape;
  const device = resolveDevice(given.device);
  const bytes = encoded(values, dtype);
  const id = session().tensor(device, [...sizes], dtype, bytes, given.requiresGrad ?? false);
  const made = wrapped(id, { shape: [...sizes], dtype, device });
  // The setter also lists it among the parameters.
  if (given.requiresGrad === true) made.requiresGrad = true;
  return made;
}

function natural(values: ArrayLike<number>): "f32" | "i32" {
  if (values instanceof Int32Array) return "i32";
  if (values instanceof Uint16Array) {
    throw new LowrankError(
      "ERR_DTYPE",
      'tensor: a Uint16Array holds bits; say which with dtype: "f16" or "bf16"',
    );
  }
  return "f32";
}

/** Nested arrays that go deeper hold themselves. */
const DEEPEST = 64;

function flattened(data: TensorData): { values: ArrayLike<number>; shape: number[] } {
  if (typeof data === "number") return { values: [data], shape: [] };
  const isTyped = [Float32Array, Float64Array, Int32Array, Uint16Array].some((one) => data instanceof one);
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
      if (depth !== shape.length) ragged();
      values.push(level);
    } else if (Array.isArray(level)) {
      if (level.length !== shape[depth]) ragged();
      for (let i = 0; i < level.length; i++) walk(level[i], depth + 1, [...place, i]);
    } else {
      argument.refuse("tensor", `data${place.map((i) => `[${i}]`).join("")}`, "a number", level);
    }
  };
  walk(data, 0, []);
  return { values, shape };
}

function ragged(): never {
  throw new LowrankError("ERR_SHAPE_MISMATCH", "tensor: nested arrays of unequal lengths have no shape");
}

function encoded(values: ArrayLike<number>, dtype: DType): Uint8Array {
  let typed: Float32Array | Int32Array | Uint16Array;
  if (dtype === "i32") typed = values instanceof Int32Array ? values : wholes(values);
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

/** The values without their fractions, as i32. */
function wholes(values: ArrayLike<number>): Int32Array {
  return Int32Array.from(values, (v, i) => {
    if (Math.abs(v) < 2 ** 31) return v;
    return argument.refuse("tensor", `value ${i} of data`, "within the range of i32", v);
  });
}

/** A tensor of `shape` with `value` throughout, f32 unless `dtype` is given. Throws `ERR_OPTION`, `ERR_OUT_OF_MEMORY`. */
export function full(
  shape: readonly number[],
  value: number,
  options?: Omit<TensorOptions, "shape">,
): Tensor {
  const given = filled("full", shape, options);
  argument.numberThat(
    "full",
    "value",
    value,
    (v) => given.dtype !== "i32" || Math.abs(v) < 2 ** 31,
    "a number of its dtype",
  );
  return constant(shape, value, given);
}

/** A tensor of `shape` with 0 throughout, f32 unless `dtype` is given. Throws as `full`. */
export function zeros(shape: readonly number[], options?: Omit<TensorOptions, "shape">): Tensor {
  return constant(shape, 0, filled("zeros", shape, options));
}

/** A tensor of `shape` with 1 throughout, f32 unless `dtype` is given. Throws as `full`. */
export function ones(shape: readonly number[], options?: Omit<TensorOptions, "shape">): Tensor {
  return constant(shape, 1, filled("ones", shape, options));
}

function constant(
  shape: readonly number[],
  value: number,
  { device, dtype, requiresGrad }: TensorOptions,
): Tensor {
  const made = wrapped(session().full(resolveDevice(device), [...shape], dtype ?? "f32", value));
  if (requiresGrad === true) made.requiresGrad = true;
  return made;
}

/**
 * 0, 1, … below `end`, or from `start`, by `step`, of shape [⌈(end − start) / step⌉]: i32 where all of them are whole, f32
 * otherwise, unless `dtype` is given. As `torch.arange`, with `end` first. Throws `ERR_OPTION` for what is not finite, and
 * for a step of 0.
 */
export function arange(
  end: number,
  options?: Omit<TensorOptions, "shape"> & { start?: number | undefined; step?: number | undefined },
): Tensor {
  const {
    start = 0,
    step = 1,
    ...rest
  } = argument.options("arange", options, [...OPTIONS.slice(1), "start", "step"] as never);
  const given = checked("arange", rest, OPTIONS.slice(1));
  for (const [name, value] of Object.entries({ end, start, step })) {
    argument.numberThat("arange", name, value, Number.isFinite, "a finite number");
  }
  argument.numberThat("arange", "step", step, (s) => s !== 0, "another number than 0");
  const size = Math.max(0, Math.ceil((end - start) / step));
  argument.numberThat(
    "arange",
    "end",
    end,
    () => size < 2 ** 31,
    `such that there are fewer than 2³¹ values`,
  );
  const values = Array.from({ length: size }, (_, i) => start + i * step);
  const dtype = given.dtype ?? (values.every(Number.isInteger) ? "i32" : "f32");
  return converted(dtype === "i32" ? wholes(values) : Float32Array.from(values), [size], { ...given, dtype });
}

/** A tensor of host values in the dtype that is asked for. */
function converted(
  values: Float32Array | Int32Array,
  shape: readonly number[],
  options: Omit<TensorOptions, "shape"> = {},
): Tensor {
  const place = options.device === undefined ? {} : { device: options.device };
  return finished(tensor(values, { shape, ...place }), options);
}

/** @internal `wide` in the dtype that is asked for. */
export function finished(wide: Tensor, { dtype, requiresGrad }: Omit<TensorOptions, "shape">): Tensor {
  const made = dtype === undefined || dtype === wide.dtype ? wide : wide.to(dtype);
  if (made !== wide) wide.dispose();
  if (requiresGrad === true) made.requiresGrad = true;
  return made;
}

/**
 * A tensor of `shape`, uniform on [0, 1), drawn by the generator that `manualSeed` starts; f32 unless `dtype` is given.
 * Throws `ERR_OPTION`, `ERR_OUT_OF_MEMORY`.
 */
export function rand(shape: readonly number[], options?: Omit<TensorOptions, "shape">): Tensor {
  return uniform(shape, 0, 1, filled("rand", shape, options));
}

/**
 * A tensor of `shape`, normal with mean 0 and variance 1, drawn by the generator that `manualSeed` starts; f32 unless
 * `dtype` is given. Throws `ERR_OPTION`, `ERR_OUT_OF_MEMORY`.
 */
export function randn(shape: readonly number[], options?: Omit<TensorOptions, "shape">): Tensor {
  return normal(shape, 1, filled("randn", shape, options));
}

/** @internal Uniform on [low, high); drawn without the host holding them all. */
export function uniform(
  shape: readonly number[],
  low: number,
  high: number,
  options: Omit<TensorOptions, "shape"> = {},
): Tensor {
  const device = resolveDevice(options.device);
  const drawn = session().randomUniform(device, [...shape], ...nextDropout(), low, high);
  return finished(wrapped(drawn), options);
}

/** @internal Normal, of mean 0; drawn without the host holding them all. */
export function normal(
  shape: readonly number[],
  deviation: number,
  options: Omit<TensorOptions, "shape"> = {},
): Tensor {
  const device = resolveDevice(options.device);
  const drawn = session().randomNormal(device, [...shape], ...nextDropout(), deviation);
  return finished(wrapped(drawn), options);
}
