import fc from "fast-check";
import test from "ava";

import { BatchPlan, buildPackedBatch } from "../../src/data/batches.js";
import { joinExamples, Packing } from "../../src/data/packing.js";
import type { Example } from "../../src/data/store.js";

function example(id: number, length: number, ignored = 0): Example {
  const ids = new Int32Array(length).fill(id);
  return { ids, labels: ids.slice().fill(-100, 0, ignored), trained: length - Math.max(1, ignored) };
}

const sequencesOf = (packing: Packing): number[][] =>
  Array.from({ length: packing.length }, (_, i) => [...packing.at(i)]);

test("every row is in one sequence, none exceeds maxLength, and at most one in a window is half empty", (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 300 }),
      fc.nat(1 << 20),
      (given, seed) => {
        const lengths = Uint32Array.from(given);
        const sequences = sequencesOf(new Packing(lengths, { maxLength: 40, seed }));
        t.deepEqual(
          sequences.flat().sort((a, b) => a - b),
          [...lengths.keys()],
        );
        const sums = sequences.map((rows) => rows.reduce((sum, row) => sum + (lengths[row] as number), 0));
        t.true(Math.max(...sums) <= 40);
        t.true(sums.filter((sum) => sum <= 20).length <= 1);
        t.deepEqual(sequences, sequencesOf(new Packing(lengths, { maxLength: 40, seed })));
      },
    ),
  );
});

test("long windows: a hundred thousand short rows waste less than a hundredth", (t) => {
  const lengths = Uint32Array.from({ length: 100_000 }, (_, i) => 1 + ((i * 7919) % 61));
  const packing = new Packing(lengths, { maxLength: 2048, seed: 1 });
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  t.true(packing.length * 2048 < 1.01 * tokens, `${packing.length} sequences for ${tokens} tokens`);
});

test("another seed packs other rows together", (t) => {
  const lengths = Uint32Array.from({ length: 60 }, (_, i) => 3 + (i % 5));
  const [one, other] = [1, 2].map((seed) => sequencesOf(new Packing(lengths, { maxLength: 20, seed })));
  t.notDeepEqual(one, other);
});

test("rows with different rotary frequencies are not packed together", (t) => {
  const lengths = Uint32Array.of(12, 5, 4, 11, 3, 9);
  const sequences = sequencesOf(new Packing(lengths, { maxLength: 24, seed: 0, separateAbove: 8 }));
  for (const rows of sequences) t.is(new Set(rows.map((row) => (lengths[row] as number) > 8)).size, 1);
  t.is(sequences.length, 3);
});

test("in joined rows no token predicts the first token of a row", (t) => {
  const { ids, labels, trained } = joinExamples([example(5, 3), example(6, 2), example(7, 4, 2)]);
  t.deepEqual([...ids], [5, 5, 5, 6, 6, 7, 7, 7, 7]);
  t.deepEqual([...labels], [-100, 5, 5, -100, 6, -100, -100, 7, 7]);
  t.is(trained, labels.filter((label) => label !== -100).length);
});

test("in a packed batch positions restart with each row and with padding; separate rows have none", (t) => {
  const batch = buildPackedBatch([[example(5, 3), example(6, 2)], [example(7, 2)]], 0);
  t.deepEqual(batch.shape, [2, 5]);
  t.deepEqual([...(batch.positions ?? [])], [0, 1, 2, 0, 1, 0, 1, 0, 1, 2]);
  t.deepEqual([...batch.ids], [5, 5, 5, 6, 6, 7, 7, 0, 0, 0]);
  t.deepEqual([batch.tokens, batch.trained], [7, 4]);
  t.is(buildPackedBatch([[example(5, 3)], [example(7, 2)]], 0).positions, undefined);
  const labelled = { ids: Int32Array.of(4, 4), labels: Int32Array.of(1), trained: 1 };
  t.deepEqual([...buildPackedBatch([[labelled]], 0).labels], [1]);
});

const rows = Array.from({ length: 50 }, (_, i) => example(i, 2 + ((i * 13) % 17)));
const options = { batchSize: 2, gradientAccumulation: 3, seed: 5, padTokenId: 0 };
const packing = { maxLength: 32 };

test("a plan of sequences: steps count them, and an epoch has every row once", (t) => {
  const plan = new BatchPlan(rows, { ...options, packing, epochs: 2 });
  const sequences = plan.sequences as number;
  t.true(sequences < 20);
  t.is(plan.stepsPerEpoch, Math.ceil(sequences / 6));
  t.is(plan.steps, 2 * plan.stepsPerEpoch);
  const tokens = rows.reduce((sum, { ids }) => sum + ids.length, 0);
  const epochs = [0, 1].map((epoch) => {
    const steps = Array.from({ length: plan.stepsPerEpoch }, (_, i) =>
      plan.listBatchesAt(epoch * plan.stepsPerEpoch + i),
    );
    t.is(
      steps.reduce((sum, step) => sum + step.tokens, 0),
      tokens,
    );
    return steps.flatMap(({ batches }) => batches.flatMap(({ ids }) => [...ids]));
  });
  t.notDeepEqual(epochs[0], epochs[1]);
});

test("rowsAt returns the rows of a step's sequences separately", (t) => {
  const plan = new BatchPlan(rows, { ...options, packing });
  const step = plan.listBatchesAt(1);
  const apart = plan.listRowsAt(1);
  t.is(
    apart.reduce((sum, batch) => sum + batch.tokens, 0),
    step.tokens,
  );
  t.true(apart.every(({ positions, shape }) => positions === undefined && shape[0] <= 2));
});

test("a cursor for other sequences is refused, and for the same ones accepted", (t) => {
  const plan = new BatchPlan(rows, { ...options, packing });
  t.is(plan.resume(plan.createCursor(1)), 1);
  const other = new BatchPlan(rows, { ...options, packing: { maxLength: 20 } });
  t.throws(() => other.resume(plan.createCursor(1)), {
    code: "ERR_OPTION",
    message: /the sequences that rows share differ from the interrupted run's: \d+ then, \d+ now/,
  });
  t.throws(() => new BatchPlan(rows, options).resume(plan.createCursor(1)), { message: /then, none now/ });
  t.is(new BatchPlan(rows, options).resume(new BatchPlan(rows, options).createCursor(2)), 2);
});
