/** Tests of kernel families: the same operations run on two devices, forward and backward, and the numbers are compared. */
import { tensor } from "../../tensor/create.js";
import type { Device } from "../../device/device.js";
import { call, native, session } from "../../native/binding.js";
import { scope } from "../../tensor/scope.js";
import type { StepResult, WrongNumbers } from "../../self-test/steps.js";
import type { DType, Tensor } from "../../tensor/tensor.js";
import { TOLERANCES, type Family } from "./tolerances.js";

/** A device that computes. */
export type CheckedDevice = Exclude<Device, "auto">;

/** An input with the same numbers on every device. */
export interface Input {
  values: Float32Array | Int32Array;
  shape: readonly number[];
  dtype: DType;
  /** Whether its gradient is also compared. */
  gradient: boolean;
}

export interface Check {
  /** The name of the test, such as `softmax over rows`. */
  name: string;
  family: Family;
  /** Whether it is part of the short test. */
  quick: boolean;
  /** Overrides the family's tolerance. */
  tolerance?: number | undefined;
  /** Whether it reads values stored as f16, which some GPUs do not support. */
  readsF16?: boolean | undefined;
  /** Runs the operations and reads the results. */
  run: (device: CheckedDevice) => Promise<Outcome>;
}

/** Results by name, and the kernels that computed them. */
export interface Outcome {
  values: Map<string, ArrayLike<number>>;
  kernels: Kernels;
}

/** Names of the launched kernels. */
export interface Kernels {
  forward: string[];
  /** Kernels of backward; all kernels if the two passes are not distinguished. */
  backward: string[];
}

/** Options of `differentiable`. */
export interface CheckOptions {
  quick?: boolean | undefined;
  tolerance?: number | undefined;
  readsF16?: boolean | undefined;
}

function deriveSeed(name: string): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(name)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash;
}

/** Makes pseudorandom numbers in [low, high), determined by shape and range. */
export function drawNumbers(
  shape: readonly number[],
  low = -1,
  high = 1,
): Omit<Input, "gradient"> & { of: "f32" } {
  const size = shape.reduce((n, d) => n * d, 1);
  const seed = deriveSeed(`${shape.join()} ${low} ${high}`);
  const values = call(() => native().uniform(seed, size % 97, size, low, high));
  return { of: "f32", values, shape, dtype: "f32" };
}

/** Makes an f32 input whose gradient is compared. */
export function makeInput(shape: readonly number[], low = -1, high = 1): Input {
  return { ...drawNumbers(shape, low, high), gradient: true };
}

/** Makes an f32 input without a gradient. */
export function makeConstant(shape: readonly number[], low = -1, high = 1): Input {
  return { ...drawNumbers(shape, low, high), gradient: false };
}

/** Makes whole numbers from 0 to n − 1. */
export function makeIndices(shape: readonly number[], n: number): Input {
  const { values } = drawNumbers(shape, 0, 1);
  return { values: Int32Array.from(values, (v) => Math.floor(v * n)), shape, dtype: "i32", gradient: false };
}

/** Makes an f32 input with exactly these values. */
export function makeExact(values: readonly number[], shape: readonly number[] = [values.length]): Input {
  return { values: Float32Array.from(values), shape, dtype: "f32", gradient: false };
}

/** Makes weights for an output, so that each of its elements has a different gradient. */
function makeWeights(shape: readonly number[], device: CheckedDevice): Tensor {
  return tensor(drawNumbers(shape, 0.25, 1.25).values, { shape, device });
}

/** Makes a check of the outputs of `f` and of the gradients of its inputs. `f` is called once per device. */
export function makeCheck<const Names extends string>(
  family: Family,
  name: string,
  inputs: Record<Names, Input>,
  f: (x: Record<Names, Tensor>) => Tensor | Record<string, Tensor>,
  options: CheckOptions = {},
): Check {
  const { quick = false, tolerance, readsF16 } = options;
  const run = async (device: CheckedDevice): Promise<Outcome> =>
    scope(async () => measureOutcome(device, inputs, f));
  return { name, family, quick, tolerance, readsF16, run };
}

async function measureOutcome(
  device: CheckedDevice,
  inputs: Record<string, Input>,
  f: (x: Record<string, Tensor>) => Tensor | Record<string, Tensor>,
): Promise<Outcome> {
  const given = Object.entries(inputs).map(([name, { values, shape, dtype, gradient }]) => {
    const created = tensor(values, { shape, device, requiresGrad: gradient });
    return [name, dtype === "f32" || dtype === "i32" ? created : created.to(dtype)] as const;
  });
  session().countLaunches(device, true);
  const result = f(Object.fromEntries(given));
  const forward = takeLaunches(device);
  const outputs = Object.entries(
    "shape" in result && "dtype" in result ? { output: result as Tensor } : result,
  );
  const leaves = given.filter(([name]) => inputs[name]?.gradient === true);
  session().countLaunches(device, true);
  if (leaves.length > 0)
    propagate(outputs.map(([, y]) => y).filter((y) => y.dtype === "f32" && y.requiresGrad));
  const backward = takeLaunches(device);
  const values = new Map<string, ArrayLike<number>>();
  for (const [name, y] of outputs) values.set(name, await y.to(y.dtype === "i32" ? "i32" : "f32").data());
  for (const [name, x] of leaves) {
    const { grad } = x;
    values.set(`gradient of ${name}`, grad === null ? [] : await grad.data());
  }
  return { values, kernels: { forward, backward } };
}

/** Stops counting launches and returns the names of the launched kernels. */
export function takeLaunches(device: CheckedDevice): string[] {
  return Object.keys(session().countLaunches(device, false)).sort();
}

/** Runs backward with a weight for each output element. A single output needs no additional kernels for that. */
function propagate(outputs: Tensor[]): void {
  const [only, ...others] = outputs as [Tensor, ...Tensor[]];
  if (others.length === 0) return only.backward(makeWeights(only.shape, only.device as CheckedDevice));
  const sums = outputs.map((y) => y.mul(makeWeights(y.shape, y.device as CheckedDevice)).sum());
  sums.reduce((a, b) => a.add(b)).backward();
}

/** Compares a GPU's numbers with the CPU's. */
export function compare(
  check: Pick<Check, "family" | "tolerance">,
  outcome: Outcome,
  expected: Outcome,
): Pick<StepResult, "error" | "wrong" | "kernels"> {
  const limit = check.tolerance ?? TOLERANCES[check.family].limit;
  let worst: WrongNumbers | undefined;
  for (const [name, values] of expected.values) {
    const found = computeDifference(name, outcome.values.get(name) ?? [], values, limit);
    if (worst === undefined || found.error > worst.error) worst = found;
    // Outputs are compared first, since errors of forward also make gradients wrong.
    if (worst.error > worst.tolerance) break;
  }
  const { forward, backward } = outcome.kernels;
  const launches = [...new Set([...forward, ...backward])].sort();
  if (worst === undefined || worst.error <= worst.tolerance)
    return { error: worst?.error, kernels: launches };
  const kernels = worst.value.startsWith("gradient") ? backward : forward;
  return { error: worst.error, wrong: worst, kernels };
}

/**
 * Returns the largest difference relative to the largest expected number. It is infinite if only one of two numbers is
 * finite, and for different whole numbers.
 */
function computeDifference(
  value: string,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  limit: number,
): WrongNumbers {
  const isInteger = expected instanceof Int32Array;
  const tolerance = isInteger ? 0 : limit;
  let scale = 1e-6;
  for (let i = 0; i < expected.length; i++) {
    const size = Math.abs(expected[i] as number);
    if (Number.isFinite(size) && size > scale) scale = size;
  }
  const worst: WrongNumbers = { value, error: 0, tolerance, at: 0, got: 0, expected: 0 };
  const recordWorst = (index: number, error: number): void => {
    if (error <= worst.error) return;
    Object.assign(worst, { error, at: index, got: actual[index] ?? NaN, expected: expected[index] ?? NaN });
  };
  if (actual.length !== expected.length) recordWorst(Math.min(actual.length, expected.length), Infinity);
  for (let i = 0; i < expected.length && i < actual.length; i++) {
    const [a, b] = [actual[i] as number, expected[i] as number];
    if (a === b || (Number.isNaN(a) && Number.isNaN(b))) continue;
    const off = Math.abs(a - b) / scale;
    recordWorst(i, isInteger || !Number.isFinite(off) ? Infinity : off);
  }
  return worst;
}
