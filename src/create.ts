/** What makes tensors: of values on the host, of one value throughout, of random ones. */
import { resolveDevice, type Device } from "./device.js";
import { LowrankError } from "./errors.js";
import { session } from "./native.js";
import { nextDropout } from "./random.js";
import { Tensor, type DType } from "./tensor.js";

export type NestedArray = readonly (number | NestedArray)[];
export type TypedArray = Float32Array | Float64Array | Int32Array | Uint16Array;
export type TensorData = number | NestedArray | TypedArray;

export interface TensorOptions {
  shape?: readonly number[] | undefined;
  dtype?: DType | undefined;
  device?: Device | undefined;
  requiresGrad?: boolean | undefined;
}

/** A tensor of `data`: a number, nested arrays or a typed array (Uint16Array holds the bits of f16 or bf16). */
export function tensor(data: TensorData, options: TensorOptions = {}): Tensor {
  const { values, shape } = flattened(data);
  const dtype = options.dtype ?? natural(values);
  const sizes = options.shape ?? shape;
  const device = resolveDevice(options.device);
  const bytes = encoded(values, dtype);
  const id = session().tensor(device, [...sizes], dtype, bytes, options.requiresGrad ?? false);
  const made = new Tensor(id, { shape: [...sizes], dtype, device });
  // The setter also lists it among the parameters.
  if (options.requiresGrad === true) made.requiresGrad = true;
  return made;
}

function natural(values: ArrayLike<number>): DType {
  if (values instanceof Int32Array) return "i32";
  if (values instanceof Uint16Array) {
    throw new LowrankError(
      "ERR_DTYPE",
      'tensor: a Uint16Array holds bits; say which with dtype: "f16" or "bf16"',
    );
  }
  return "f32";
}

function flattened(data: TensorData): { values: ArrayLike<number>; shape: number[] } {
  if (typeof data === "number") return { values: [data], shape: [] };
  if (ArrayBuffer.isView(data)) return { values: data, shape: [data.length] };
  const shape: number[] = [];
  for (let level: unknown = data; Array.isArray(level); level = level[0]) shape.push(level.length);
  const values: number[] = [];
  const walk = (level: number | NestedArray, depth: number): void => {
    if (typeof level === "number") {
      if (depth !== shape.length) ragged();
      values.push(level);
    } else {
      if (level.length !== shape[depth]) ragged();
      for (const inner of level) walk(inner, depth + 1);
    }
  };
  walk(data as NestedArray, 0);
  return { values, shape };
}

function ragged(): never {
  throw new LowrankError("ERR_SHAPE_MISMATCH", "tensor: nested arrays of unequal lengths have no shape");
}

function encoded(values: ArrayLike<number>, dtype: DType): Uint8Array {
  let typed: Float32Array | Int32Array | Uint16Array;
  if (dtype === "i32") typed = values instanceof Int32Array ? values : Int32Array.from(values);
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

/** A tensor of one value throughout. */
export function full(
  shape: readonly number[],
  value: number,
  options: Omit<TensorOptions, "shape"> = {},
): Tensor {
  const made = new Tensor(
    session().full(resolveDevice(options.device), [...shape], options.dtype ?? "f32", value),
  );
  if (options.requiresGrad === true) made.requiresGrad = true;
  return made;
}

export function zeros(shape: readonly number[], options: Omit<TensorOptions, "shape"> = {}): Tensor {
  return full(shape, 0, options);
}

export function ones(shape: readonly number[], options: Omit<TensorOptions, "shape"> = {}): Tensor {
  return full(shape, 1, options);
}

/** 0, 1, … below `end` as i32; or from `start`, by `step`. */
export function arange(
  end: number,
  options?: Omit<TensorOptions, "shape"> & { start?: number; step?: number },
): Tensor {
  const { start = 0, step = 1, ...rest } = options ?? {};
  const size = Math.max(0, Math.ceil((end - start) / step));
  const values = Array.from({ length: size }, (_, i) => start + i * step);
  const dtype = rest.dtype ?? (values.every(Number.isInteger) ? "i32" : "f32");
  return converted(dtype === "i32" ? Int32Array.from(values) : Float32Array.from(values), [size], {
    ...rest,
    dtype,
  });
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

/** `wide` in the dtype that is asked for. */
function finished(wide: Tensor, { dtype, requiresGrad }: Omit<TensorOptions, "shape">): Tensor {
  const made = dtype === undefined || dtype === wide.dtype ? wide : wide.to(dtype);
  if (made !== wide) wide.dispose();
  if (requiresGrad === true) made.requiresGrad = true;
  return made;
}

/** Uniform on [0, 1). */
export function rand(shape: readonly number[], options: Omit<TensorOptions, "shape"> = {}): Tensor {
  return uniform(shape, 0, 1, options);
}

/** Normal, of mean 0 and variance 1. */
export function randn(shape: readonly number[], options: Omit<TensorOptions, "shape"> = {}): Tensor {
  return normal(shape, 1, options);
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
  return finished(new Tensor(drawn), options);
}

/** @internal Normal, of mean 0; drawn without the host holding them all. */
export function normal(
  shape: readonly number[],
  deviation: number,
  options: Omit<TensorOptions, "shape"> = {},
): Tensor {
  const device = resolveDevice(options.device);
  const drawn = session().randomNormal(device, [...shape], ...nextDropout(), deviation);
  return finished(new Tensor(drawn), options);
}
