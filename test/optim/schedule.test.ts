import test from "ava";
import { optim } from "../../src/index.js";

const factors = (schedule: (step: number) => number, steps: number): number[] =>
  Array.from({ length: steps }, (_, step) => Number(schedule(step).toFixed(6)));

test("linear: transformers' factors", (t) => {
  t.deepEqual(factors(optim.schedule.linear({ warmup: 2, total: 6 }), 7), [0, 0.5, 1, 0.75, 0.5, 0.25, 0]);
  t.deepEqual(factors(optim.schedule.linear({ total: 4 }), 5), [1, 0.75, 0.5, 0.25, 0]);
});

test("cosine: transformers' factors", (t) => {
  t.deepEqual(factors(optim.schedule.cosine({ warmup: 1, total: 5 }), 6), [0, 1, 0.853553, 0.5, 0.146447, 0]);
});

test("constant, with a warm-up", (t) => {
  t.deepEqual(factors(optim.schedule.constant({ warmup: 2, total: 4 }), 4), [0, 0.5, 1, 1]);
  t.deepEqual(factors(optim.schedule.constant(), 2), [1, 1]);
});

test("invalid numbers of steps are refused", (t) => {
  t.throws(() => optim.schedule.linear({ warmup: -1, total: 4 }), {
    code: "ERR_OPTION",
    message: /warmup.*-1/,
  });
  t.throws(() => optim.schedule.cosine({ total: Number.NaN }), { code: "ERR_OPTION" });
});
