/** Divergence: how it is found from loss and gradient, which checkpoints are good, and how a run reacts. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { finetune, loadModel, zeros, type FinetuneOptions, type TrainEvent } from "../../src/index.js";
import { Divergence } from "../../src/train/divergence.js";
import { selectSuperfluous } from "../../src/train/output/checkpoints.js";
import { tinyData, tinyModel } from "../hashed.js";
import { collect, quick } from "./quick.js";

const given = { model: tinyModel(), data: tinyData() };
const options = (more: Partial<FinetuneOptions> = {}): FinetuneOptions & { output: string } =>
  quick(given, "cpu", { lora: { r: 2 }, ...more }) as FinetuneOptions & { output: string };

const warnings = (events: readonly TrainEvent[]): string[] =>
  events.flatMap((event) => (event.type === "warning" ? [event.message] : []));
const goodOf = (output: string, step: number): unknown =>
  (JSON.parse(readFileSync(join(output, `checkpoint-${step}`, "run.json"), "utf8")) as { good?: unknown })
    .good;

/**
 * Trains the first step at a rate that changes nearly nothing, so that the run has a good checkpoint. Returns the
 * options that continue the run at its own rate.
 */
async function trainFirstStep(
  run: ReturnType<typeof options>,
): Promise<Pick<FinetuneOptions, "optimizer" | "steps"> & { resume: string; steps: number }> {
  const { output, optimizer, steps = 12 } = run;
  await finetune({ ...run, optimizer: { lr: 1e-12 }, steps: 1 }).result;
  return { resume: output, optimizer, steps: steps as number };
}

/** Feeds a watch with losses, and from the second step on a gradient and a rate; returns its reports. */
function reported(watch: Divergence, losses: readonly number[], gradNorm = 1, trained = 500): string[] {
  return losses.flatMap((loss, i) => {
    const { warning } = watch.add({ step: i + 1, loss, gradNorm, learningRate: i === 0 ? 0 : 0.01, trained });
    return warning === undefined ? [] : [warning];
  });
}

const repeated = (loss: number, count: number): number[] => Array.from({ length: count }, () => loss);

test("a loss that stays above the bound is reported once, with the figures and a remedy", (t) => {
  // Loss 2.5 of ln 50,000 = 10.8: at 6.7 half of the advantage over guessing is lost.
  const watch = new Divergence({ guessing: Math.log(50_000) });
  const told = reported(watch, [...repeated(2.5, 12), ...repeated(7.5, 30)]);
  t.is(told.length, 1, told.join("\n"));
  t.regex(
    told[0] ?? "",
    /^step 18: training has diverged: the median loss of the last 10 steps is 7\.50; it was 2\.50 before training, and guessing gives 10\.82; lower the learning rate \(0\.010 at this step; optimizer\.lr\) or lengthen the warm-up \(warmup\)$/,
  );
});

test("healthy losses are not reported: noise, single outliers, heads that start at guessing", (t) => {
  const noisy = Array.from(
    { length: 300 },
    (_, i) => 3 * Math.exp(-i / 100) * (1 + 0.9 * Math.sin(i * 12.9898)),
  );
  const guessing = Math.log(32_000);
  t.deepEqual(reported(new Divergence({ guessing }), noisy), []);
  t.deepEqual(
    reported(new Divergence({ guessing }), [...repeated(2, 20), 30, 40, 50, ...repeated(2, 20)]),
    [],
  );
  // Two classes, one row a step: each loss is somewhere between 0.2 and 1.2.
  const single = Array.from({ length: 300 }, (_, i) => 0.7 + 0.5 * Math.sin(i * 78.233));
  t.deepEqual(reported(new Divergence({ guessing: Math.LN2 }), single, 1, 1), []);
  // From scratch: no better than guessing at first, and slightly worse after the first updates.
  t.deepEqual(
    reported(new Divergence({ guessing }), [...repeated(10.4, 3), ...repeated(11.2, 20), ...noisy]),
    [],
  );
  // Without a bound no loss is reported.
  t.deepEqual(reported(new Divergence(), [...repeated(1, 20), ...repeated(1e9, 20)]), []);
});

test("a model that falls back to guessing is reported even if it started close to guessing", (t) => {
  // Loss 3.4 of ln 99 = 4.6, over 100 tokens a step.
  const watch = new Divergence({ guessing: Math.log(99) });
  t.is(reported(watch, [...repeated(3.4, 10), ...repeated(Math.log(99), 20)], 1, 100).length, 1);
});

test("the first update cannot raise the bound", (t) => {
  const watch = new Divergence({ guessing: Math.log(50_000) });
  // No warm-up: the second loss is computed with ruined weights.
  watch.add({ step: 1, loss: 2.5, gradNorm: 1, learningRate: 1, trained: 500 });
  const told = reported(watch, repeated(9, 12));
  t.is(told.length, 1);
  t.deepEqual(watch.reference, { loss: 2.5, gradNorm: 1 });
});

test("a gradient that stays at 0 is reported once, and again after it has changed", (t) => {
  const watch = new Divergence();
  t.deepEqual(reported(watch, repeated(1, 9), 0), []);
  const told = reported(watch, repeated(1, 20), 0);
  t.is(told.length, 1);
  t.regex(told[0] ?? "", /the gradient was 0 for 10 steps: nothing is being learned; check that/);
  t.deepEqual(reported(watch, repeated(1, 3), 0.5), []);
  t.is(reported(watch, repeated(1, 12), 0).length, 1);
  // A shorter run reports it at its end.
  t.regex(reported(new Divergence({ steps: 1 }), [1], 0)[0] ?? "", /step 1: the gradient is 0: nothing/);
});

/** Feeds the figures of healthy steps, then those in `more`; returns the verdict and the warnings of each. */
function verdicts(
  watch: Divergence,
  more: readonly { loss: number; gradNorm: number; learningRate?: number }[],
  before: readonly number[] = repeated(4.7, 3),
): { sound: boolean; warning?: string | undefined }[] {
  const healthy = before.map((loss) => ({ loss, gradNorm: 0.8, learningRate: 0.01 }));
  const all = [...healthy, ...more].map((one, i) =>
    watch.add({ step: i + 1, trained: 100, learningRate: 0.01, ...one }),
  );
  return all.slice(before.length);
}

test("a model that collapses to equal probabilities is reported if it started better", (t) => {
  const guessing = Math.log(99);
  for (const gradNorm of [0, 1e-12, 7e-7]) {
    const watch = new Divergence({ guessing });
    const found = verdicts(
      watch,
      Array.from({ length: 12 }, () => ({ loss: guessing, gradNorm })),
    );
    t.true(
      found.every(({ sound }) => !sound),
      `${gradNorm}`,
    );
    const told = found.flatMap(({ warning }) => warning ?? []);
    t.is(told.length, 1, told.join("\n"));
    t.regex(
      told[0] ?? "",
      /^step 6: training has diverged: the gradient is (0|1\.0e-12|7\.0e-7), so that nothing is learned any more, and the loss is 4\.60; it was 4\.70 before training, and guessing gives 4\.60; lower the learning rate \(0\.010 at this step; optimizer\.lr\) or lengthen the warm-up \(warmup\)$/,
    );
    t.true(watch.diverged);
    t.is(watch.judge(guessing), "bad");
  }
});

test("a collapse is found with one row a step, and with an unbounded loss", (t) => {
  // For a single row the bound is 3 above the loss before training.
  const classes = new Divergence({ guessing: Math.LN2 });
  for (let step = 1; step <= 20; step++)
    classes.add({ step, loss: 0.4 + 0.01 * step, gradNorm: 2, learningRate: 1, trained: 1 });
  t.false(classes.add({ step: 21, loss: Math.LN2, gradNorm: 0, learningRate: 1, trained: 1 }).sound);
  // A user's loss function may be negative.
  const own = new Divergence();
  const found = verdicts(own, [{ loss: -1, gradNorm: 0 }], [-1, -5, -9]);
  t.false(found[0]?.sound);
  t.is(new Divergence().judge(3), "good");
});

test("a small gradient alone is no collapse: learnt data, rates of 0, heads that start at 0", (t) => {
  const guessing = Math.log(99);
  const healthy = (more: Parameters<typeof verdicts>[1], watch = new Divergence({ guessing })): void => {
    const found = verdicts(watch, more);
    t.true(found.every(({ sound }) => sound));
    t.deepEqual(
      found.flatMap(({ warning }) => warning ?? []).filter((one) => one.includes("diverged")),
      [],
    );
  };
  // Learnt: loss and gradient fall to 0 together, in the end exactly.
  healthy(
    Array.from({ length: 60 }, (_, i) => ({ loss: 4 * Math.exp(-i / 2), gradNorm: 0.8 * Math.exp(-i / 2) })),
  );
  healthy(repeated(0, 30).map((loss) => ({ loss, gradNorm: 0 })));
  // Label smoothing has a loss above 0 at its optimum.
  healthy(repeated(0.9, 30).map((loss) => ({ loss, gradNorm: 1e-9 })));
  // A warm-up whose rate stays 0 for many steps, at a constant loss: the gradient does not change.
  healthy(repeated(4.7, 30).map((loss) => ({ loss, gradNorm: 0.8, learningRate: 0 })));
  // A new head of zeros guesses exactly until its first updates have an effect.
  const fresh = new Divergence({ guessing: Math.log(3) });
  const rates = [0, 0, 0.01, 0.01, 0.01];
  for (const [i, learningRate] of rates.entries()) {
    const figures = { step: i + 1, loss: Math.log(3), gradNorm: 0.5, learningRate, trained: 2 };
    t.deepEqual(fresh.add(figures), { sound: true, warning: undefined });
  }
  t.is(fresh.judge(Math.log(3)), "good");
  // With one class guessing is right, and the loss is 0 from the start.
  const one = new Divergence({ guessing: 0 });
  t.true(one.add({ step: 1, loss: 0, gradNorm: 0, learningRate: 1, trained: 4 }).sound);
  t.true(one.add({ step: 2, loss: 0, gradNorm: 0, learningRate: 1, trained: 4 }).sound);
});

test("a resumed run knows the loss and the gradient before training", (t) => {
  const guessing = Math.log(99);
  const before = new Divergence({ guessing });
  verdicts(before, [{ loss: 4.5, gradNorm: 0.3 }]);
  t.deepEqual(before.reference, { loss: 4.7, gradNorm: 0.8 });
  const dead = { step: 5, loss: guessing, gradNorm: 1e-9, learningRate: 0.01, trained: 100 };
  t.false(new Divergence({ guessing, reference: before.reference }).add(dead).sound);
  // A checkpoint without a stored gradient still has the loss.
  t.false(new Divergence({ guessing, reference: { loss: 4.7 } }).add({ ...dead, gradNorm: 0 }).sound);
});

test("the weights after the last step are judged by a loss alone", (t) => {
  const guessing = Math.log(99);
  const watch = new Divergence({ guessing });
  verdicts(watch, [{ loss: 4.6, gradNorm: 0.8 }]);
  t.is(watch.judge(4.2), "good");
  t.is(watch.judge(guessing * (1 + 1e-7)), "bad");
  t.is(watch.judge(guessing * 1.01), "good");
  t.is(watch.judge(9), "unknown");
});

test("a loss that no update changes is reported once, except at small rates", (t) => {
  const constant = (rates: readonly number[], loss = 4.7): string[] =>
    verdicts(
      new Divergence({ guessing: Math.log(99) }),
      rates.map((learningRate) => ({ loss, gradNorm: 0.8, learningRate })),
    ).flatMap(({ warning }) => warning ?? []);
  const told = constant(repeated(0.01, 90));
  t.is(told.length, 1, told.join("\n"));
  t.regex(
    told[0] ?? "",
    /^step 50: the loss has been 4\.7 for 50 steps: the updates do not change it; check that the learning rate \(optimizer\.lr\)/,
  );
  // Rates that are small relative to the highest one: a warm-up, and the end of a schedule.
  t.deepEqual(constant(repeated(0.001, 90), 4.71), []);
  t.deepEqual(
    constant(
      repeated(0, 90).map((_, i) => 0.02 + i),
      4.71,
    ).length,
    1,
  );
  // A loss below the initial one means that the model has learnt.
  t.deepEqual(constant(repeated(0.01, 90), 0.3), []);
});

test("pruning keeps the last good checkpoint, and a bad one is not the best", (t) => {
  const one = (step: number, good: boolean | undefined, evalLoss: number | null = null) => ({
    step,
    good,
    evalLoss,
  });
  const gone = (all: ReturnType<typeof one>[], keep: number): number[] =>
    selectSuperfluous(all, keep).map(({ step }) => step);
  t.deepEqual(gone([one(1, true), one(2, true), one(3, undefined)], 1), [1]);
  t.deepEqual(gone([one(1, true), one(2, false), one(3, false)], 1), [2]);
  t.deepEqual(gone([one(1, undefined), one(2, undefined), one(3, undefined)], 1), [1, 2]);
  t.deepEqual(gone([one(1, false, 0.1), one(2, true, 0.5), one(3, true, 0.7), one(4, undefined)], 1), [1]);
});

test.serial(
  "a checkpoint is good once the next step has been checked, and the last one after a separate check",
  async (t) => {
    const whole = options({ saveEvery: 4 });
    await finetune(whole).result;
    for (const step of [4, 8, 12]) t.is(goodOf(whole.output, step), true, `${step}`);
    // No step followed this one, so it is not known to be good.
    const cut = options({ saveEvery: 100 });
    const run = finetune(cut);
    for await (const event of run) if (event.type === "step" && event.step === 3) void run.stop();
    const { steps } = await run.result;
    t.is(goodOf(cut.output, steps), undefined);
    await finetune({ resume: cut.output, steps: 12 }).result;
    t.is(goodOf(cut.output, steps), true);
  },
);

test.serial(
  "a run that diverges names the last good checkpoint, keeps it, and resumes from it",
  async (t) => {
    // Step 2 ruins the weights, which step 3 detects: checkpoint-2 is bad and the newest.
    const ruined = options({
      optimizer: { lr: 1e30 },
      clipNorm: 0,
      warmup: 0,
      saveEvery: 1,
      keep: 1,
      schedule: "constant",
    });
    const good = join(ruined.output, "checkpoint-1");
    const continued = await trainFirstStep(ruined);
    const failure = await t.throwsAsync(finetune(continued).result, { code: "ERR_NOT_FINITE" });
    t.is(/the last good checkpoint is (\S+);/.exec(failure?.message ?? "")?.[1], good, failure?.message);
    t.deepEqual(
      readdirSync(ruined.output).filter((name) => name.startsWith("checkpoint-")),
      ["checkpoint-1", "checkpoint-2"],
    );
    t.deepEqual([goodOf(ruined.output, 1), goodOf(ruined.output, 2)], [true, false]);
    // The bad checkpoint is accepted when named explicitly, with a warning.
    const bad = finetune({ resume: join(ruined.output, "checkpoint-2"), output: `${ruined.output}-2` });
    const told: string[] = [];
    const reading = async (): Promise<void> => {
      for await (const event of bad) if (event.type === "warning") told.push(event.message);
    };
    await t.throwsAsync(reading(), { code: "ERR_NOT_FINITE" });
    t.true(
      told.includes(`resume: training had diverged at ${join(ruined.output, "checkpoint-2")}`),
      told.join("\n"),
    );
    const events = await collect(finetune({ resume: ruined.output, optimizer: { lr: 1e-3 } }));
    t.like(
      events.find(({ type }) => type === "start"),
      { resumedFrom: 1 },
    );
    t.true(
      warnings(events).some((message) =>
        message.includes(`continues from ${good}, the last good checkpoint`),
      ),
      warnings(events).join("\n"),
    );
    t.like(events.at(-1), { type: "end", steps: 12 });
  },
);

test.serial(
  "a run killed right after a bad checkpoint detects it on resuming, and resumes from the good one",
  async (t) => {
    const ruined = options({
      optimizer: { lr: 1e30 },
      clipNorm: 0,
      warmup: 0,
      saveEvery: 1,
      schedule: "constant",
    });
    const controller = new AbortController();
    const run = finetune({ ...(await trainFirstStep(ruined)), signal: controller.signal });
    const reading = async (): Promise<void> => {
      for await (const event of run)
        if (event.type === "checkpoint" && event.step === 2) controller.abort(new Error("killed"));
    };
    await reading().catch(() => {});
    const newest = goodOf(ruined.output, 2);
    // The third step may have been checked before the abort was noticed.
    if (newest === undefined) {
      const failure = await t.throwsAsync(finetune({ resume: ruined.output }).result, {
        code: "ERR_NOT_FINITE",
      });
      t.regex(failure?.message ?? "", /step 3: .*the last good checkpoint is \S+checkpoint-1;/);
    }
    t.is(goodOf(ruined.output, 2), false);
    const events = await collect(finetune({ resume: ruined.output, optimizer: { lr: 1e-3 } }));
    t.like(events.at(-1), { type: "end", steps: 12 });
  },
);

test.serial(
  "a dead model's checkpoint is not good, and a run that keeps one checkpoint keeps the good one",
  async (t) => {
    // The model's loss is above guessing, and a large rate turns the output of the last norm to zeros.
    for (const lr of [1e3, 1e6, 1e10]) {
      const dying = options({
        optimizer: { lr },
        clipNorm: 0,
        warmup: 0,
        schedule: "constant",
        saveEvery: 1,
        keep: 1,
      });
      const events: TrainEvent[] = [];
      const run = finetune(await trainFirstStep(dying));
      const reading = async (): Promise<void> => {
        for await (const event of run) events.push(event);
      };
      const failure = await t.throwsAsync(reading(), { code: "ERR_NOT_FINITE" });
      const steps = events.flatMap((event) => (event.type === "step" ? [event] : []));
      const died = steps.findIndex(({ gradNorm }) => gradNorm === 0);
      t.true(died > 0 && Math.abs((steps[died]?.loss ?? 0) - Math.log(99)) < 1e-5, `${lr}: ${died}`);
      // The last checkpoint whose weights gave a gradient: the one before the step that ran on the dead weights.
      const good = (steps[died]?.step ?? 0) - 2;
      t.is(
        /the last good checkpoint is (\S+);/.exec(failure?.message ?? "")?.[1],
        join(dying.output, `checkpoint-${good}`),
        failure?.message,
      );
      t.is(goodOf(dying.output, good), true);
      const kept = readdirSync(dying.output).filter((name) => name.startsWith("checkpoint-"));
      for (const name of kept)
        if (name !== `checkpoint-${good}`)
          t.is(goodOf(dying.output, Number(name.split("-")[1])), false, name);
      const again = await collect(
        finetune({ resume: dying.output, optimizer: { lr: 1e-3 }, steps: good + 2 }),
      );
      t.like(
        again.find(({ type }) => type === "start"),
        { resumedFrom: good },
      );
    }
  },
);

test.serial("a model that dies in its last update is reported, without a good checkpoint", async (t) => {
  const dying = options({
    optimizer: { lr: 1e6 },
    clipNorm: 0,
    warmup: 0,
    schedule: "constant",
    saveEvery: 1,
    steps: 2,
  });
  const told = warnings(await collect(finetune(await trainFirstStep(dying))));
  t.true(
    told.some((message) =>
      /^step 2: the loss after the last update is 4\.60 \(5\.16 before it\): the model no longer depends on its input; try the adapter before you use it; the last good checkpoint is \S+checkpoint-1$/.test(
        message,
      ),
    ),
    told.join("\n"),
  );
  t.deepEqual([goodOf(dying.output, 1), goodOf(dying.output, 2)], [true, false]);
});

test.serial("weights ruined by the last step are not saved as an adapter", async (t) => {
  const ruined = options({ optimizer: { lr: 1e30 }, clipNorm: 0, warmup: 0, steps: 1, schedule: "constant" });
  const failure = await t.throwsAsync(finetune(ruined).result, { code: "ERR_NOT_FINITE" });
  t.regex(failure?.message ?? "", /^step 1: the loss after the update is NaN.*try a lower learning rate/);
  t.false(readdirSync(ruined.output).includes("adapter_model.safetensors"));
  // No good checkpoint was saved, so there is nothing to resume from, and the error says so.
  await t.throwsAsync(finetune({ resume: ruined.output }).result, {
    code: "ERR_NOT_FINITE",
    message:
      /none is good; start a new run with a lower learning rate \(optimizer\.lr\) .*; overwrite replaces this one\. To resume from a bad checkpoint, name it$/,
  });
});

test.serial(
  "a run whose loss rises but stays finite is warned about, and not all of its checkpoints are good",
  async (t) => {
    const learned = options({ optimizer: { lr: 0.05 }, steps: 40 });
    await finetune(learned).result;
    const climbing = options({
      adapter: learned.output,
      lora: undefined,
      // A warm-up of 8 steps reaches a rate at which the model falls back to guessing.
      optimizer: { lr: 150 },
      warmup: 8,
      steps: 30,
      schedule: "constant",
      saveEvery: 1,
      keep: 2,
    });
    const events: TrainEvent[] = [];
    const run = finetune(await trainFirstStep(climbing));
    for await (const event of run) {
      events.push(event);
      if (event.type === "warning" && event.message.includes("diverged")) void run.stop();
    }
    const told = warnings(events).filter((message) => message.includes("training has diverged"));
    t.is(told.length, 1, warnings(events).join("\n"));
    const [, named] = /the last good checkpoint is (\S+)$/.exec(told[0] ?? "") ?? [];
    const good = Number(named?.split("-").at(-1));
    const steps = events.flatMap((event) => (event.type === "step" ? [event] : []));
    // The loss of the next step is within the initial bound; later losses are not, and the checkpoint is still
    // kept.
    t.true(
      (steps.find(({ step }) => step === good + 1)?.loss ?? Infinity) < 4 && good < steps.length - 3,
      `${named}: ${steps.map(({ loss }) => loss).join()}`,
    );
    t.true(readdirSync(climbing.output).includes(`checkpoint-${good}`));
    const resumed = finetune({ resume: climbing.output, optimizer: { lr: 1e-3 }, steps: good + 2 });
    t.is((await collect(resumed)).find((event) => event.type === "start")?.resumedFrom, good);
  },
);

test.serial("a run without gradients is warned about", async (t) => {
  const model = await loadModel(given.model, { device: "cpu" });
  // If a norm outputs zeros, no layer before it affects the loss.
  const { "model.norm.weight": norm } = model.stateDict();
  model.loadStateDict({ "model.norm.weight": zeros([...(norm?.shape ?? [])]) }, { strict: false });
  const events = await collect(finetune({ ...options(), model }));
  const told = warnings(events).filter((message) => message.includes("nothing is being learned"));
  t.is(told.length, 1, warnings(events).join("\n"));
  t.regex(told[0] ?? "", /^step 10: the gradient was 0 for 10 steps/);
  model.dispose();
});
