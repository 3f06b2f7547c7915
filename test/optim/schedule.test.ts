import test from "ava";
import { optim } from "../../src/index.js";

const factors = (schedule: (step: number) => number, steps: number): number[] =>
  Array.from({ length: steps }, (_, step) => Number(schedule(step).toFixed(6)));

// transformers 5.24: get_linear_schedule_with_warmup, get_cosine_schedule_with_warmup and
// get_constant_schedule_with_warmup with 3 steps of warm-up of 12; the first ten factors.
const TRANSFORMERS = {
  linear: [0, 0.333333, 0.666667, 1, 0.888889, 0.777778, 0.666667, 0.555556, 0.444444, 0.333333],
  cosine: [0, 0.333333, 0.666667, 1, 0.969846, 0.883022, 0.75, 0.586824, 0.413176, 0.25],
  constant: [0, 0.333333, 0.666667, 1, 1, 1, 1, 1, 1, 1],
};

for (const name of ["linear", "cosine", "constant"] as const) {
  test(`${name}: a warm-up of 3 steps starts at 1/3; the other factors are transformers' ones`, (t) => {
    const ours = factors(optim.schedule[name]({ warmup: 3, total: 12 }), 10);
    t.deepEqual(ours.slice(0, 3), [0.333333, 0.666667, 1]);
    t.deepEqual(ours.slice(3), TRANSFORMERS[name].slice(3));
  });
}

test("linear: the factors fall to 0 after the last step", (t) => {
  t.deepEqual(factors(optim.schedule.linear({ warmup: 2, total: 6 }), 7), [0.5, 1, 1, 0.75, 0.5, 0.25, 0]);
  t.deepEqual(factors(optim.schedule.linear({ total: 4 }), 5), [1, 0.75, 0.5, 0.25, 0]);
});

test("cosine: with a warm-up of one step, the first step has the full rate", (t) => {
  t.deepEqual(factors(optim.schedule.cosine({ warmup: 1, total: 5 }), 6), [1, 1, 0.853553, 0.5, 0.146447, 0]);
});

test("a warm-up that is no whole number does not exceed 1", (t) => {
  t.deepEqual(factors(optim.schedule.constant({ warmup: 1.5, total: 4 }), 3), [0.666667, 1, 1]);
});

test("constant, with a warm-up", (t) => {
  t.deepEqual(factors(optim.schedule.constant({ warmup: 2, total: 4 }), 4), [0.5, 1, 1, 1]);
  t.deepEqual(factors(optim.schedule.constant(), 2), [1, 1]);
});

test("invalid numbers of steps are refused", (t) => {
  t.throws(() => optim.schedule.linear({ warmup: -1, total: 4 }), {
    code: "ERR_OPTION",
    message: /warmup.*-1/,
  });
  t.throws(() => optim.schedule.cosine({ total: Number.NaN }), { code: "ERR_OPTION" });
});
