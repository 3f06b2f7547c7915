/** What training holds: constant from step to step, bounded by what is live, and known beforehand. */
import test from "ava";

import { lora, memory, nn, randn, scope, synchronize, type Device } from "../../src/index.js";
import { session } from "../../src/native.js";
import { testDevices } from "../devices.js";
import { adamOf, recordStep, smallLlama } from "../small-llama.js";

/** Lengths 1 to 512 in no order. */
function lengthAt(step: number): number {
  return 1 + ((Math.imul(step + 1, 2654435761) >>> 0) % 512);
}

function rss(): number {
  globalThis.gc?.();
  return process.memoryUsage().rss;
}

/** LOWRANK_MEMORY_STEPS=40 is enough for a look: a gpu in software takes a minute for 200. */
const STEPS = Number(process.env["LOWRANK_MEMORY_STEPS"] ?? 200);

for (const device of testDevices()) {
  for (const [name, length] of [
    ["one length", () => 65],
    ["lengths of 1 to 512", lengthAt],
  ] as const) {
    test.serial(`on ${device}, ${STEPS} steps of ${name} hold no more than the highest live`, async (t) => {
      t.timeout(600_000);
      const model = await smallLlama(device);
      const optimizer = adamOf(model);
      session().trim(device);
      let after: number | undefined;
      // The least of two quarters of the run: what a driver takes for a while to compile a kernel is no drift.
      let [early, late] = [Infinity, Infinity];
      for (let step = 0; step < STEPS; step++) {
        recordStep(model, optimizer, length(step));
        const { live } = memory(device);
        // The first step makes the optimizer's moments and the rotary tables.
        if (step === 0 || (name !== "one length" && step < 4)) after = live;
        else if (live !== after && length(step) <= 512) {
          // A longer text than any before grows the rotary tables once.
          t.true(step < 40 && live > (after ?? 0), `step ${step}: ${live} bytes live, ${after} before`);
          after = live;
        }
        if (step % 8 === 7) await synchronize(device);
        const quarter = Math.floor((4 * step) / STEPS);
        if (quarter === 1) early = Math.min(early, rss());
        if (quarter === 3) late = Math.min(late, rss());
      }
      await synchronize(device);
      const { reserved, peak } = memory(device);
      // `peak` is the most that the pool held; trim() set it to what was live.
      const highest = session().highestLive(device);
      t.true(peak <= highest * 1.125 + 4096, `held ${peak}, highest live ${highest}`);
      t.true(reserved <= peak);
      const drift = (Math.min(late, rss()) - early) / 2 ** 20;
      t.log(
        `held ${(peak / 2 ** 20).toFixed(2)} MiB at most, live at most ${(highest / 2 ** 20).toFixed(2)}; RSS drift ${drift.toFixed(1)} MiB`,
      );
      t.true(drift < 5, `${drift} MiB`);
      optimizer.dispose();
      model.dispose();
    });
  }

  test.serial(`the peak of meta:${device} is that of ${device}, to the byte`, async (t) => {
    const peaks: number[] = [];
    for (const name of [device, `meta:${device}`] as Device[]) {
      const model = await smallLlama(name);
      const optimizer = adamOf(model);
      session().trim(name);
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
  // x·Aᵀ, y with both its parts; then Z, dA, dB, and no gradient of x.
  t.is(products(adapted, false), 5);
  t.is(products(adapted, true), 6, "and d_x with both its parts");
});
