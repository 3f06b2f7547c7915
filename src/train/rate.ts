/** Estimates the time of a step from its arithmetic and the device's current speed. */
import { full } from "../tensor/create.js";
import { type Device, synchronize } from "../device/device.js";
import { Linear } from "../nn/linear.js";
import type { PretrainedModel } from "../models/pretrained.js";
import { type MatmulPrecision, noGrad, scope, withMatmulPrecision } from "../tensor/scope.js";
import { isBlock, makeParameter, type DType } from "../tensor/tensor.js";

/** The cost of one batch, forward and backward. */
export interface BatchCost {
  /** Floating-point operations, as the kernels define them. */
  work: number;
  /** Seconds for recording on the host. */
  hostSeconds: number;
  /** The largest product. */
  product: Product;
}

/** x [rows, inner] · Wᵀ, W [outer, inner]. */
export interface Product {
  rows: number;
  inner: number;
  outer: number;
  /** The storage type of W. */
  dtype: DType;
}

/** The maximum rows and operations of the timed product. */
const MOST = { rows: 512, operations: 1e9 };
/** The minimum number and duration of repetitions; a single one may be delayed by other work. */
const REPEATED = { times: 3, seconds: 0.03 };

/** The rate of a step relative to its largest product; smaller products, norms and sums are slower. */
const REACHED = 0.75;

/** Returns the seconds of a step of `batches` at `rate`: device time plus host time, which on a cpu uses the same cores. */
export function computeSeconds({ work, hostSeconds }: BatchCost, rate: number, batches: number): number {
  return batches * (work / (REACHED * rate) + hostSeconds);
}

/** Returns the product with the largest weight of a model's layers, for batches of `tokens`. */
export function findLargestProduct(model: PretrainedModel, tokens: number): Product {
  const weights = Object.entries(model.stateDict())
    .filter(([name, { shape }]) => /\.\d+\./.test(name) && !name.includes("lora_") && shape.length === 2)
    .map(([, tensor]) => tensor);
  const [outer = 64, inner = 64] = weights.reduce<readonly number[]>(
    (most, { shape }) =>
      (shape[0] as number) * (shape[1] as number) > (most[0] ?? 0) * (most[1] ?? 0) ? shape : most,
    [],
  );
  return { rows: Math.min(tokens, MOST.rows), inner, outer, dtype: weights[0]?.dtype ?? "f32" };
}

/** Measures a product's floating-point operations per second on the device. A quantised weight is timed as f32. */
export async function measureRate(
  device: Exclude<Device, "auto">,
  { rows, inner, outer: wholeOuter, dtype }: Product,
  precision: MatmulPrecision,
): Promise<number> {
  const outer = Math.max(1, Math.min(wholeOuter, Math.floor(MOST.operations / (2 * rows * inner))));
  // Constants, because drawing a million random values takes longer than the products.
  const x = full([rows, inner], 1 / 3, { device });
  const weight = scope(() => full([outer, inner], 1 / 7, { device }).to(isBlock(dtype) ? "f32" : dtype));
  const layer = new Linear(inner, outer, { weight: makeParameter(weight, false), bias: false });
  try {
    const multiply = async (): Promise<number> => {
      const began = performance.now();
      noGrad(() => withMatmulPrecision(precision, () => layer.forward(x))).dispose();
      await synchronize(device);
      return (performance.now() - began) / 1000;
    };
    // The first call tunes the kernel, and wakes an idle device.
    await multiply();
    let quickest = Infinity;
    for (let [spent, times] = [0, 0]; spent < REPEATED.seconds || times < REPEATED.times; times++) {
      const seconds = await multiply();
      quickest = Math.min(quickest, seconds);
      spent += seconds;
    }
    return (2 * rows * inner * outer) / quickest;
  } finally {
    x.dispose();
    layer.dispose();
  }
}
