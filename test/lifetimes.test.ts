/** Ownership of memory, and its return to the system. */
import { setImmediate as turn } from "node:timers/promises";

import test from "ava";

import { memory, nn, ones, scope, synchronize, tensor, trim, type Tensor } from "../src/index.js";
import { session } from "../src/native/binding.js";
import { testDevices } from "./devices.js";

const MIB = 2 ** 20;

/** Creates `count` tensors of `bytes` without references. */
function drop(count: number, bytes: number, device: "cpu" | "gpu"): void {
  for (let i = 0; i < count; i++) ones([bytes / 4], { device });
}

for (const device of testDevices()) {
  test.serial(`on ${device} unreferenced tensors are freed within a synchronous loop`, (t) => {
    const before = memory(device);
    let most = 0;
    for (let i = 0; i < 300; i++) {
      drop(1, 4 * MIB, device);
      most = Math.max(most, memory(device).live - before.live);
    }
    t.true(most < 256 * MIB, `${most / MIB} MiB`);
    session().collect(0);
    t.is(memory(device).live, before.live);
    t.is(memory(device).tensors, before.tensors);
  });

  test.serial(`on ${device} small tensors are freed, too, unless they are referenced`, async (t) => {
    session().collect(0);
    const before = memory(device).tensors;
    const kept: Tensor[] = [];
    for (let i = 0; i < 6000; i++) {
      const made = tensor([i], { device });
      if (i % 1000 === 0) kept.push(made.add(1));
      if (i % 2000 === 0) await turn();
    }
    session().collect(0);
    t.true(memory(device).tensors - before <= kept.length + 1);
    for (const [i, one] of kept.entries()) t.is(await one.item(), i * 1000 + 1);
    for (const one of kept) one.dispose();
  });

  test.serial(`on ${device} trim returns idle memory while reads and recordings are pending`, async (t) => {
    session().collect(0);
    await synchronize(device);
    trim(device);
    const held = tensor(
      Float32Array.from({ length: 1000 }, (_, i) => i),
      { device },
    );
    let reads: Promise<Float32Array>[] = [];
    for (let i = 0; i < 20; i++) {
      const moved = scope(() => held.add(i).mul(2));
      reads.push(moved.data() as Promise<Float32Array>);
      moved.dispose();
      // During a recording, so that later operations take new buffers.
      if (i % 3 === 0) t.true(trim(device) >= 0);
    }
    for (const [i, values] of (await Promise.all(reads)).entries())
      t.deepEqual([...values.subarray(0, 3)], [2 * i, 2 * (1 + i), 2 * (2 + i)]);
    reads = [];
    const { live, reserved, peak } = memory(device);
    const given = trim(device);
    const after = memory(device);
    t.is(after.live, live);
    t.is(after.reserved, reserved - given);
    t.is(after.peak, peak, "the peak is the highest that there was");
    t.is(trim(device), 0);
    t.deepEqual([...(await held.slice(0, 5, 8).data())], [5, 6, 7]);
    held.dispose();
  });

  test.serial(
    `on ${device} interleaved scopes free their own tensors, and returned tensors survive`,
    async (t) => {
      session().collect(0);
      const before = memory(device).tensors;
      const escaped: Tensor[] = [];
      const one = async (n: number): Promise<Tensor> =>
        scope(async () => {
          const x = tensor([n, n], { device });
          for (let i = 0; i < 5; i++) {
            await turn();
            x.add(i);
            const inner = await scope(async () => {
              const y = x.mul(2);
              await turn();
              return { deep: [y.add(1)] };
            });
            if (i === 3) escaped.push(inner.deep[0] as Tensor);
          }
          return x.sum();
        });
      const sums = await Promise.all([1, 2, 3, 4].map(one));
      for (const [i, sum] of sums.entries()) t.is(await sum.item(), 2 * (i + 1));
      // A tensor returned from an inner scope belongs to the outer one, which has ended.
      for (const gone of escaped) t.throws(() => gone.add(1), { code: "ERR_DISPOSED" });
      for (const sum of sums) sum.dispose();
      t.is(memory(device).tensors, before);
    },
  );

  test.serial(`on ${device} thousands of unreferenced modules leave nothing`, async (t) => {
    session().collect(0);
    const before = memory(device);
    const kept = new nn.Linear(4, 3, { device });
    for (let i = 0; i < 3000; i++) {
      const layer = new nn.Linear(4, 3, { device });
      if (i % 500 === 0) {
        scope(() =>
          layer
            .forward(ones([2, 4], { device }))
            .sum()
            .backward(),
        );
        await turn();
      }
    }
    session().collect(0);
    t.true(memory(device).tensors - before.tensors <= 4);
    t.deepEqual(scope(() => kept.forward(ones([2, 4], { device }))).shape, [2, 3]);
    kept.dispose();
  });
}

test("two devices are trimmed separately, and a meta device returns nothing", (t) => {
  const [a, b] = ["meta:cpu", "meta:gpu"] as const;
  ones([1000], { device: a }).dispose();
  ones([2000], { device: b }).dispose();
  const kept = memory(b).reserved;
  t.true(trim(a) >= 4000);
  t.is(memory(b).reserved, kept);
  t.true(trim(b) >= 8000);
  t.throws(() => trim("tpu" as "cpu"), { code: "ERR_OPTION" });
});
