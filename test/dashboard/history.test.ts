/** The history of a run that a page keeps, compared with all events. */
import test from "ava";

import { METRICS, RunHistory } from "../../src/dashboard/page/history.js";
import { stepped } from "../runs/written.js";

const BUCKETS = 4096;

/** Returns unordered values, and null for every 17th step. */
function lossAt(step: number): number | null {
  return step % 17 === 0 ? null : ((Math.imul(step, 2654435761) >>> 0) % 1000) / 10;
}

for (const steps of [1, 2, 4095, 4096, 4097, 9001, 40_000]) {
  test(`of ${steps} steps each bucket has its minimum, its maximum and its mean`, (t) => {
    const history = new RunHistory();
    for (let n = 1; n <= steps; n++) history.take(stepped(n, steps, { loss: lossAt(n) }));
    t.is(history.step, steps);
    let width = 1;
    while (Math.ceil(steps / width) >= BUCKETS) width *= 2;
    t.is(history.width, width);
    for (const wide of [width, 4 * width]) {
      const { least, greatest, mean } = history.readBuckets("loss", wide);
      t.is(least.length, Math.ceil(steps / wide) + 1);
      t.deepEqual([least[0], greatest[0], mean[0]], [NaN, NaN, NaN]);
      for (let bucket = 1; bucket < least.length; bucket++) {
        const values: number[] = [];
        for (let n = (bucket - 1) * wide + 1; n <= Math.min(bucket * wide, steps); n++) {
          const value = lossAt(n);
          if (value !== null) values.push(value);
        }
        if (values.length === 0) {
          t.deepEqual([least[bucket], greatest[bucket], mean[bucket]], [NaN, NaN, NaN]);
          continue;
        }
        const sum = values.reduce((a, b) => a + b, 0);
        const whole =
          least[bucket] === Math.min(...values) &&
          greatest[bucket] === Math.max(...values) &&
          Math.abs((mean[bucket] as number) - sum / values.length) < 1e-9;
        if (!whole)
          t.fail(`bucket ${bucket} of ${wide}: ${least[bucket]} ${greatest[bucket]} ${mean[bucket]}`);
      }
    }
    for (const name of METRICS)
      t.is(history.readBuckets(name, width).mean.length, Math.ceil(steps / width) + 1);
  });
}

test("with very many events no more are kept than a page shows", (t) => {
  const history = new RunHistory();
  for (let step = 0; step < 5000; step++) {
    history.take({ type: "eval", step, loss: step });
    history.take({ type: "sample", step, texts: [] });
    history.take({ type: "warning", message: `${step}` });
  }
  t.true(history.evals.length <= 2048 && history.evals.length > 1000);
  t.is(history.samples.length, 256);
  t.is(history.samples.at(-1)?.step, 4999);
  t.is(history.messages.length, 200);
  t.is(history.messages.at(-1)?.text, "warning: 4999");
  // Repeated events, as from a resumed run.
  history.take({ type: "eval", step: 4999, loss: 7 });
  history.take({ type: "sample", step: 4999, texts: [{ prompt: "a", base: "b", tuned: "c" }] });
  t.is(history.evals.filter(({ step }) => step === 4999).length, 1);
  t.is(history.evals.at(-1)?.loss, 7);
  t.is(history.samples.filter(({ step }) => step === 4999).length, 1);
  t.is(history.samples.length, 256);
});

test("ranks take the figures of the newest step, and a resumed run has other ranks", (t) => {
  const history = new RunHistory();
  const place = (host: string): object => ({ host, pid: 7, devices: ["cpu"], rows: 4 });
  history.take({ type: "start", ranks: [place("a"), place("b")] });
  history.take({
    type: "step",
    step: 1,
    ranks: [{ tokensPerSecond: 9, memoryBytes: 5 }, { tokensPerSecond: null }],
  });
  const rows = { pid: 7, devices: "cpu", rows: 4 };
  t.deepEqual(history.ranks, [
    { ...rows, host: "a", tokensPerSecond: 9, memoryBytes: 5 },
    { ...rows, host: "b", tokensPerSecond: undefined, memoryBytes: undefined },
  ]);
  // An evaluation or a damaged line leaves them.
  const before = history.ranks;
  history.take({ type: "step", step: 2, ranks: "3" });
  t.is(history.ranks, before);
  history.take({ type: "start" });
  t.deepEqual(history.ranks, []);
  history.take({ type: "start", ranks: [null, 3] });
  t.is(history.ranks.length, 2);
});

test("invalid steps and values change nothing", (t) => {
  const history = new RunHistory();
  for (const step of [0, -1, null, "3", NaN]) history.take({ type: "step", step, loss: 1 });
  t.is(history.step, 0);
  for (const loss of [null, "1", undefined, Infinity]) history.take({ type: "step", step: 1, loss });
  t.deepEqual([...history.readBuckets("loss", 1).mean], [NaN, NaN]);
});
