/** Memory of training: constant from step to step, bounded by the live tensors, and known beforehand. */
import test from "ava";

import { lora, memory, nn, randn, scope, synchronize, type Device } from "../../src/index.js";
import { session } from "../../src/native/binding.js";
import { atRest } from "../at-rest.js";
import { testDevices } from "../devices.js";
import { adamOf, recordStep, smallLlama } from "../small-llama.js";

/** A length for each kernel variant: a software GPU keeps some 17 MiB for each variant that it compiles. */
const FORMS = [512, 1, 2, 5, 12, 15, 24, 33, 65, 100, 150, 300];

/** Returns the lengths of every variant first, then lengths of 1 to 512 in a scrambled order. */
function lengthAt(step: number): number {
  return FORMS[step] ?? 1 + ((Math.imul(step + 1, 2654435761) >>> 0) % 512);
}

/** Returns resident bytes without JavaScript's heap, which V8 grows and shrinks by some 20 MiB at will. */
function resident(): number {
  globalThis.gc?.();
  const { rss, heapTotal } = process.memoryUsage();
  return rss - heapTotal;
}

/** LOWRANK_MEMORY_STEPS=40 suffices for a quick check: a software GPU takes a minute for 200. */
const STEPS = Number(process.env["LOWRANK_MEMORY_STEPS"] ?? 200);

for (const device of testDevices()) {
  for (const [name, length] of [
    ["one length", () => 65],
    ["lengths of 1 to 512", lengthAt],
  ] as const) {
    test.serial(
      `on ${device}, ${STEPS} steps of ${name} hold little more than the peak of live bytes`,
      async (t) => {
        t.timeout(600_000);
        const model = await smallLlama(device);
        const optimizer = adamOf(model);
        t.teardown(() => {
          optimizer.dispose();
          model.dispose();
        });
        session().restartPeak(device);
        let after: number | undefined;
        /** Trains a quarter of the steps; returns the highest resident size. */
        const quarter = async (n: number): Promise<number> => {
          let most = 0;
          for (let step = (STEPS * n) / 4; step < (STEPS * (n + 1)) / 4; step++) {
            recordStep(model, optimizer, length(step));
            const { live } = memory(device);
            // The first step allocates the optimizer's moments, and the rotary tables of the longest text.
            after ??= live;
            t.is(live, after, `step ${step}`);
            if (step % 8 === 7) await synchronize(device);
            most = Math.max(most, resident());
          }
          await synchronize(device);
          return Math.max(most, resident());
        };
        const most: number[] = [];
        const above = (n: number): number =>
          ((most[n] as number) - Math.max(...most.slice(n - 3, n - 1))) / 2 ** 20;
        for (let n = 0; n < 4; n++) most.push(await quarter(n));
        // V8 and a driver's compiler take and return some 16 MiB at a time at will, but a leak in each step shows
        // in each quarter.
        for (let n = 4; n < 8 && above(n - 1) >= 8; n++) most.push(await quarter(n));
        const drift = above(most.length - 1);
        const { reserved, peak } = memory(device);
        // `peak` is the pool's highest size; trim() reset it to the live bytes.
        const highest = session().highestLive(device);
        // An eighth, or the idle bytes that a pool of a few megabytes keeps (pool.rs).
        const room = Math.max(highest / 8, 16 * 2 ** 20);
        t.true(peak <= highest + room + 4096, `peak ${peak}, peak of live bytes ${highest}`);
        t.true(reserved <= peak);
        t.log(
          `held ${(peak / 2 ** 20).toFixed(2)} MiB at most, live at most ${(highest / 2 ** 20).toFixed(2)}; resident ${drift.toFixed(1)} MiB above half the steps before`,
        );
        t.true(drift < 8, `${drift} MiB`);
      },
    );
  }

  test.serial(`meta:${device} has the same peak as ${device}, to the byte`, async (t) => {
    const peaks: number[] = [];
    for (const name of [device, `meta:${device}`] as Device[]) {
      const model = await smallLlama(name);
      const optimizer = adamOf(model);
      await atRest(name);
      session().restartPeak(name);
      const before = memory(name);
      for (const length of [200, 33, 300]) recordStep(model, optimizer, length);
      peaks.push(memory(name).peak - before.reserved, memory(name).live - before.live);
      optimizer.dispose();
      model.dispose();
    }
    t.log(`${peaks[0]} bytes`);
    t.true((peaks[0] as number) > 100_000);
    t.deepEqual(peaks.slice(2), peaks.slice(0, 2));
  });
}

test.serial("no backward is built for a frozen weight", async (t) => {
  const products = (layer: nn.Linear, asks: boolean): number => {
    const x = randn([5, 8], { device: "cpu", requiresGrad: asks });
    session().countLaunches("cpu", true);
    scope(() => {
      const y = layer.forward(x);
      if (y.requiresGrad) y.sum().backward();
    });
    const counted = session().countLaunches("cpu", false);
    return Object.entries(counted)
      .filter(([kernel]) => kernel.startsWith("gemm"))
      .reduce((n, [, launches]) => n + launches, 0);
  };
  const layer = new nn.Linear(8, 6, { device: "cpu", bias: false });
  t.is(products(layer, true), 3, "y, d_x and d_weight");
  layer.weight.requiresGrad = false;
  t.is(products(layer, true), 2, "y and d_x");
  t.is(products(layer, false), 1, "y alone");
  const adapted = lora.Linear.fromBase(layer, { r: 2 });
  // x·Aᵀ and the two products of y; then Z, dA and dB, without a gradient of x.
  t.is(products(adapted, false), 5);
  t.is(products(adapted, true), 6, "and d_x with both its parts");
});
