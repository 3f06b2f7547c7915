/** Measures a device's throughput: matrix products by precision, and memory. */
import { ones, zeros } from "../tensor/create.js";
import { synchronize } from "../device/device.js";
import { session } from "../native/binding.js";
import { noGrad, scope, withMatmulPrecision, type MatmulPrecision } from "../tensor/scope.js";
import { recordOp, type Tensor } from "../tensor/tensor.js";
import type { CheckedDevice } from "./checks/check.js";

/** The measured rates. */
export interface Rates {
  /** Floating-point operations per second of matrix products, by precision of the factors. */
  products: Partial<Record<"f32" | "f16" | "bf16", number>>;
  /** Bytes per second read and written by adding two vectors that are larger than the caches. */
  memory: number;
}

/** Size of the square matrices. */
const EDGE = 1024;
/** Elements of each vector: 32 MiB. */
const LENGTH = 8 << 20;
/** Approximate duration of a measurement, in milliseconds. */
const TARGET = 250;

/** Returns the seconds per call of `work`, from the fastest of several rounds. */
async function measureFastest(device: CheckedDevice, work: () => Tensor): Promise<number> {
  const measureRound = async (count: number): Promise<number> => {
    await synchronize(device);
    const began = performance.now();
    for (let i = 0; i < count; i++) work().dispose();
    await synchronize(device);
    return (performance.now() - began) / count;
  };
  // The first call compiles.
  await measureRound(1);
  const once = await measureRound(1);
  const count = Math.max(1, Math.min(50, Math.round(TARGET / 3 / once)));
  const rounds = once > TARGET ? 1 : 3;
  let best = once;
  for (let i = 0; i < rounds; i++) best = Math.min(best, await measureRound(count));
  return best / 1000;
}

/** Measures the device. `f16` and `f16Storage` are whether the GPU computes in f16 and reads f16. */
export async function measure(
  device: CheckedDevice,
  { f16, f16Storage }: { f16: boolean; f16Storage: boolean },
): Promise<Rates> {
  const product = async (precision: MatmulPrecision, dtype: "f32" | "f16" | "bf16"): Promise<number> =>
    scope(async () => {
      const [x, weight] = [ones([EDGE, EDGE], { device }), ones([EDGE, EDGE], { device }).to(dtype)];
      const seconds = await noGrad(async () =>
        withMatmulPrecision(precision, async () =>
          measureFastest(device, () => recordOp(() => session().linear(x.id, weight.id, undefined, false))),
        ),
      );
      return (2 * EDGE ** 3) / seconds;
    });
  const products: Rates["products"] = { f32: await product("exact", "f32") };
  if (device === "cpu") products.bf16 = await product("bf16", "bf16");
  else if (f16 && f16Storage) products.f16 = await product("f16", "f16");
  const memory = await scope(async () => {
    const [a, b] = [zeros([LENGTH], { device }), zeros([LENGTH], { device })];
    return (3 * 4 * LENGTH) / (await noGrad(async () => measureFastest(device, () => a.add(b))));
  });
  return { products, memory };
}
