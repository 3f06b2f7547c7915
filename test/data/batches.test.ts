import fc from "fast-check";
import test from "ava";
import { type Batch, listBatchesInOrder, buildBatch, BatchPlan } from "../../src/data/batches.js";
import type { Example } from "../../src/data/examples.js";
import { shuffleEpoch, createSplitmix32 } from "../../src/data/shuffle.js";

/** Returns an example of `length` tokens with the same id. */
function example(id: number, length = 2): Example {
  const ids = new Int32Array(length).fill(id);
  return { ids, labels: ids.slice(), trained: length - 1 };
}

const firsts = (batch: Batch): number[] =>
  Array.from({ length: batch.shape[0] }, (_, row) => batch.ids[row * batch.shape[1]] ?? -1);

const options = { batchSize: 2, gradientAccumulation: 2, seed: 3, padTokenId: 0 };

test("rows are padded on the right, and padding is not trained on", (t) => {
  const batch = buildBatch([example(5, 3), example(6, 1)], 9);
  t.deepEqual([...batch.ids], [5, 5, 5, 6, 9, 9]);
  t.deepEqual([...batch.labels], [5, 5, 5, 6, -100, -100]);
  t.deepEqual(batch.shape, [2, 3]);
  t.deepEqual(batch.lengths, [3, 1]);
  t.is(batch.tokens, 4);
  t.is(batch.trained, 2);
});

test("a step groups accumulated batches and knows its trained tokens", (t) => {
  const plan = new BatchPlan(
    Array.from({ length: 10 }, (_, i) => example(i, i + 1)),
    options,
  );
  t.is(plan.stepsPerEpoch, 3);
  t.is(plan.steps, 3);
  const sizes = [0, 1, 2].map((step) => plan.listBatchesAt(step).batches.map((batch) => batch.shape[0]));
  t.deepEqual(sizes, [[2, 2], [2, 2], [2]]);
  for (const step of [0, 1, 2]) {
    const { batches, trained } = plan.listBatchesAt(step);
    const counted = batches.reduce((sum, batch) => sum + batch.labels.filter((l) => l !== -100).length, 0);
    const rows = batches.reduce((sum, batch) => sum + batch.shape[0], 0);
    t.is(trained, counted - rows);
  }
});

test("each epoch has every row once, in a new order", (t) => {
  const count = 23;
  const plan = new BatchPlan(
    Array.from({ length: count }, (_, i) => example(i)),
    { ...options, epochs: 3 },
  );
  t.is(plan.steps, 3 * plan.stepsPerEpoch);
  const epochs = [0, 1, 2].map((epoch) =>
    Array.from({ length: plan.stepsPerEpoch }, (_, i) =>
      plan.listBatchesAt(epoch * plan.stepsPerEpoch + i),
    ).flatMap((step) => {
      t.is(step.epoch, epoch);
      return step.batches.flatMap(firsts);
    }),
  );
  for (const rows of epochs)
    t.deepEqual(
      rows.toSorted((a, b) => a - b),
      [...Array(count).keys()],
    );
  t.notDeepEqual(epochs[0], epochs[1]);
});

test("a plan can be resumed at any step, in any order", (t) => {
  const examples = Array.from({ length: 9 }, (_, i) => example(i, (i % 4) + 1));
  const whole = new BatchPlan(examples, { ...options, steps: 20 });
  const again = new BatchPlan(examples, { ...options, steps: 20 });
  for (const step of [19, 7, 0, 12]) t.deepEqual(again.listBatchesAt(step), whole.listBatchesAt(step));
});

test("steps may take many epochs, and epochs may be a fraction", (t) => {
  const examples = Array.from({ length: 8 }, (_, i) => example(i));
  t.is(new BatchPlan(examples, { ...options, steps: 100 }).steps, 100);
  t.is(new BatchPlan(examples, { ...options, epochs: 0.5 }).steps, 1);
  t.is(new BatchPlan(examples, { ...options, epochs: 2.5 }).steps, 5);
  t.is(new BatchPlan(examples, { ...options, steps: 100 }).listBatchesAt(99).epoch, 49);
});

test("a cursor is only valid for its own data and options", (t) => {
  const examples = Array.from({ length: 8 }, (_, i) => example(i));
  const plan = new BatchPlan(examples, options);
  const cursor = JSON.parse(JSON.stringify(plan.createCursor(1)));
  t.is(new BatchPlan(examples, { ...options, steps: 50 }).resume(cursor), 1);
  const changed = examples.with(3, example(99));
  t.throws(() => new BatchPlan(changed, options).resume(cursor), { message: /training data differs/ });
  t.throws(() => new BatchPlan(examples.slice(1), options).resume(cursor), { message: /8 then, 7 now/ });
  t.throws(() => new BatchPlan(examples, { ...options, seed: 4 }).resume(cursor), {
    message: /seed differs/,
  });
  t.throws(() => new BatchPlan(examples, { ...options, batchSize: 1 }).resume(cursor), {
    message: /batchSize/,
  });
});

test("within a step rows of similar length share a batch", (t) => {
  const lengths = [9, 1, 8, 2];
  const plan = new BatchPlan(
    lengths.map((length, i) => example(i, length)),
    options,
  );
  const [short, long] = plan.listBatchesAt(0).batches;
  t.deepEqual(short?.shape, [2, 2]);
  t.deepEqual(long?.shape, [2, 9]);
});

test("evaluation reads the rows in sequence", (t) => {
  const rows = [
    ...listBatchesInOrder(
      Array.from({ length: 5 }, (_, i) => example(i)),
      2,
      0,
    ),
  ];
  t.deepEqual(rows.map(firsts), [[0, 1], [2, 3], [4]]);
});

test("orders are permutations, pinned, and differ by seed and epoch", (t) => {
  fc.assert(
    fc.property(fc.nat(200), fc.maxSafeNat(), fc.nat(1000), (length, seed, epoch) => {
      const order = shuffleEpoch(length, seed, epoch);
      t.deepEqual(
        [...order].toSorted((a, b) => a - b),
        [...Array(length).keys()],
      );
    }),
    { numRuns: 50 },
  );
  t.notDeepEqual(shuffleEpoch(50, 0, 0), shuffleEpoch(50, 1, 0));
  t.notDeepEqual(shuffleEpoch(50, 0, 0), shuffleEpoch(50, 0, 1));
  t.notDeepEqual(shuffleEpoch(50, 0, 0), shuffleEpoch(50, 2 ** 32, 0));
  t.deepEqual([...shuffleEpoch(8, 0, 0)], [3, 6, 5, 2, 7, 4, 0, 1]);
});

test("each row is first about equally often", (t) => {
  const counts = new Uint32Array(8);
  for (let seed = 0; seed < 8000; seed++) {
    const first = shuffleEpoch(8, seed, 0)[0] ?? 0;
    counts[first] = (counts[first] ?? 0) + 1;
  }
  for (const count of counts) t.true(Math.abs(count - 1000) < 150, String(counts));
});

test("splitmix32 is pinned", (t) => {
  const next = createSplitmix32(0);
  t.deepEqual([next(), next(), next()], [2462723854, 1020716019, 454327756]);
});
