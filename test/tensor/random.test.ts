/** Random integers, permutations and draws: the same for a seed on every device, with the specified distribution. */
import test from "ava";

import {
  bernoulli,
  eye,
  fullLike,
  linspace,
  manualSeed,
  multinomial,
  ones,
  onesLike,
  randint,
  randperm,
  tensor,
  zerosLike,
  type Tensor,
} from "../../src/index.js";
import { testDevices } from "../devices.js";

const list = async (of: Tensor): Promise<number[]> => [...(await of.data())];

/** Returns the number of occurrences of each of `n` whole numbers. */
function counts(values: readonly number[], n: number): number[] {
  const found = Array<number>(n).fill(0);
  for (const value of values) found[value] = (found[value] as number) + 1;
  return found;
}

/** Whether counts of `total` draws are within six standard deviations of the expected counts. */
function fits(found: readonly number[], probabilities: readonly number[], total: number): boolean {
  return probabilities.every((p, i) => {
    const deviation = Math.sqrt(total * p * (1 - p));
    return Math.abs((found[i] as number) - total * p) <= 6 * deviation;
  });
}

test.serial("a seed gives the same draws on every device", async (t) => {
  const weights = [
    [0.1, 0, 3, 2.5, 1e-3],
    [1, 1, 1, 1, 1],
  ];
  const drawn = async (device: ReturnType<typeof testDevices>[number]): Promise<number[][]> => {
    manualSeed(7);
    const w = tensor(weights, { device });
    return [
      await list(randint(-5, 9, [3, 50], { device })),
      await list(randperm(101, { device })),
      await list(w.clamp(0, 1).bernoulli()),
      await list(w.multinomial(4)),
      await list(w.multinomial(500, { replacement: true })),
    ];
  };
  const first = await drawn("cpu");
  for (const device of testDevices()) t.deepEqual(await drawn(device), first, device);
  manualSeed(8);
  t.notDeepEqual(await list(randperm(101)), first[1]);
});

test.serial("draws have the given probabilities", async (t) => {
  manualSeed(11);
  const total = 20_000;
  t.true(fits(counts(await list(randint(0, 5, [total], { device: "cpu" })), 5), Array(5).fill(0.2), total));
  const order = await list(randperm(1000, { device: "cpu" }));
  t.deepEqual(
    order.toSorted((a, b) => a - b),
    Array.from({ length: 1000 }, (_, i) => i),
  );
  const p = tensor([0, 0.3, 1], { device: "cpu" }).expand(total, 3);
  const ones = await list(bernoulli(p));
  const share = ones.filter((value, i) => i % 3 === 1 && value === 1).length;
  t.true(fits([share], [0.3], total));
  t.true(ones.every((value, i) => (i % 3 === 0 ? value === 0 : i % 3 === 2 ? value === 1 : true)));
  const weights = [3, 0, 1e-3, 5, 2];
  const sum = weights.reduce((a, b) => a + b, 0);
  const shares = weights.map((w) => w / sum);
  const w = tensor(weights, { device: "cpu" });
  const many = await list(multinomial(w, total, { replacement: true }));
  t.true(fits(counts(many, 5), shares, total), String(counts(many, 5)));
  // Without replacement the first draw has the given probabilities, and the second the remaining ones.
  const pairs = await list(w.expand(total, 5).multinomial(2));
  const firsts = pairs.filter((_, i) => i % 2 === 0);
  t.true(fits(counts(firsts, 5), shares, total));
  const after = pairs.filter((_, i) => i % 2 === 1 && pairs[i - 1] === 3);
  const left = weights.map((one, i) => (i === 3 ? 0 : one / (sum - 5)));
  t.true(fits(counts(after, 5), left, after.length), String(counts(after, 5)));
  t.true(pairs.every((one, i) => i % 2 === 0 || one !== pairs[i - 1]));
});

test("rare categories of many are drawn as rarely as expected", async (t) => {
  // 200,000 weights of 1e-9 and one of 1: one of the former is drawn once in 5,000.
  manualSeed(3);
  const values = new Float32Array(200_001).fill(1e-9);
  values[0] = 1;
  const w = tensor(values, { device: "cpu" });
  const drawn = await list(w.multinomial(20, { replacement: true }));
  t.true(drawn.filter((one) => one !== 0).length <= 2);
});

test("impossible draws are −1, and invalid probabilities NaN", async (t) => {
  for (const device of testDevices()) {
    const rows = tensor(
      [
        [0, 0, 0],
        [1, -1, 2],
        [1, NaN, 2],
        [1, Infinity, 2],
        [0, 5, 0],
      ],
      { device },
    );
    const once = await list(rows.multinomial(2));
    t.deepEqual(once, [-1, -1, -1, -1, -1, -1, -1, -1, 1, -1], device);
    const again = await list(rows.multinomial(2, { replacement: true }));
    t.deepEqual(again, [-1, -1, -1, -1, -1, -1, -1, -1, 1, 1], device);
    const p = await list(tensor([-0.1, 1.1, NaN, Infinity, 0, 1], { device }).bernoulli());
    t.deepEqual(p, [NaN, NaN, NaN, NaN, 0, 1], device);
  }
});

test("regular values", async (t) => {
  for (const device of testDevices()) {
    t.deepEqual(await list(eye(2, 3, { device })), [1, 0, 0, 0, 1, 0]);
    t.deepEqual((await eye(3, undefined, { device, dtype: "i32" }).data()).constructor, Int32Array);
    t.deepEqual(eye(0, undefined, { device }).shape, [0, 0]);
    const line = linspace(-1, 0.1, 12, { device });
    const values = await list(line);
    t.is(values[0], -1);
    t.is(values.at(-1), Math.fround(0.1));
    t.true(values.every((v, i) => Math.abs(v - (-1 + (1.1 * i) / 11)) < 1e-7));
    t.deepEqual(await list(linspace(2, 5, 1, { device })), [2]);
    const of = ones([2, 1], { device, dtype: "f16" });
    const like = [onesLike(of), zerosLike(of, { dtype: "i32" }), fullLike(of, 2.5, { dtype: "f32" })];
    t.deepEqual(
      like.map(({ shape, dtype, device: place }) => [shape, dtype, place]),
      [
        [[2, 1], "f16", of.device],
        [[2, 1], "i32", of.device],
        [[2, 1], "f32", of.device],
      ],
    );
    t.deepEqual(await list(like[2] as Tensor), [2.5, 2.5]);
    t.true(eye(2, 2, { device, requiresGrad: true }).requiresGrad);
  }
});
