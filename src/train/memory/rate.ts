/** How long a step takes, by its arithmetic and by how fast the device multiplies now. */
import { full } from "../../create.js";
import { type Device, synchronize } from "../../device.js";
import { Linear } from "../../nn/linear.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import { type MatmulPrecision, noGrad, scope, withMatmulPrecision } from "../../scope.js";
import { isBlock, parameter, type DType } from "../../tensor.js";

/** What one batch costs, forward and backward. */
export interface BatchCost {
  /** Floating-point operations, by the definitions of the kernels. */
  work: number;
  /** Seconds that the host took to record it. */
  hostSeconds: number;
  /** The product that takes most of it. */
  product: Product;
}

/** x [rows, inner] · Wᵀ, W [outer, inner]. */
export interface Product {
  rows: number;
  inner: number;
  outer: number;
  /** How W is stored. */
  dtype: DType;
}

/** Most rows, and most operations, of the product that is timed. */
const MOST = { rows: 512, operations: 1e9 };
/** How often it is repeated at least, and for how long: one alone may have had to wait. */
const REPEATED = { times: 3, seconds: 0.03 };

/** What of the rate of its largest product a step reaches: the rest goes into smaller ones, norms and sums. */
const REACHED = 0.75;

/** Seconds of a step of so many batches at `rate`: what the device takes, and the host, which on a cpu has the same cores. */
export function secondsOfStep({ work, hostSeconds }: BatchCost, rate: number, batches: number): number {
  return batches * (work / (REACHED * rate) + hostSeconds);
}

/** The largest weight of a model's layers, as batches of so many tokens are multiplied by it. */
export function largestProduct(model: PretrainedModel, tokens: number): Product {
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

/** Floating-point operations a second of a product, measured now on the device. A quantised weight is timed as f32. */
export async function measuredRate(
  device: Exclude<Device, "auto">,
  { rows, inner, outer: whole, dtype }: Product,
  precision: MatmulPrecision,
): Promise<number> {
  const outer = Math.max(1, Math.min(whole, Math.floor(MOST.operations / (2 * rows * inner))));
  // No draws: of a million values they take longer than the products.
  const x = full([rows, inner], 1 / 3, { device });
  const weight = scope(() => full([outer, inner], 1 / 7, { device }).to(isBlock(dtype) ? "f32" : dtype));
  const layer = new Linear(inner, outer, { weight: parameter(weight, false), bias: false });
  try {
    const multiply = async (): Promise<number> => {
      const began = performance.now();
      noGrad(() => withMatmulPrecision(precision, () => layer.forward(x))).dispose();
      await synchronize(device);
      return (performance.now() - began) / 1000;
    };
    // The first finds its form, and a device that sleeps.
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
