/** Checkpoints by time: when they are due, their cost in a short run, and the work that a kill loses. */
import { readdirSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { finetune, type FinetuneOptions, type TrainEvent } from "../../src/index.js";
import { CLOCK } from "../../src/train/finetune/finetuning.js";
import { parseSaveInterval, SaveTimer } from "../../src/train/options/save-interval.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { adapterBytes, collect, quick } from "./quick.js";

const MINUTE = 60_000;
const given = { model: tinyModel(), data: tinyData() };
const options = (more: Partial<FinetuneOptions> = {}): FinetuneOptions & { output: string } =>
  quick(given, "cpu", { lora: { r: 2, loraDropout: 0.1 }, ...more }) as FinetuneOptions & { output: string };

/** Returns a clock that is advanced by hand. */
function clock(): { now: () => number; add: (ms: number) => void } {
  let at = 5000;
  return { now: () => at, add: (ms) => void (at += ms) };
}

const savedAt = (events: TrainEvent[]): number[] =>
  events.flatMap((event) => (event.type === "checkpoint" ? [event.step] : []));

test("saveEvery is a number of steps, a time, or never", (t) => {
  const valid: [number | string, object | undefined][] = [
    [7, { steps: 7 }],
    ["10m", { seconds: 600 }],
    ["90s", { seconds: 90 }],
    ["1.5h", { seconds: 5400 }],
    ["never", undefined],
    [0, undefined],
  ];
  for (const [value, expected] of valid) t.deepEqual(parseSaveInterval(value), expected as never);
  const message =
    /^saveEvery must be a number of steps, a time such as "10m" \(s, m or h\), or "never", got /;
  for (const value of [-1, 1.5, NaN, "", "10", "0m", "10 minutes", "m", "-5m", "1d", `${"9".repeat(400)}h`])
    t.throws(() => parseSaveInterval(value), { code: "ERR_OPTION", message }, String(value));
});

test("a kill at any moment loses less than the interval, whatever steps, evaluations and saves take", async (t) => {
  let drawn = 1;
  const random = (most: number): number => (drawn = (drawn * 48_271) % 2_147_483_647) % most;
  for (let run = 0; run < 200; run++) {
    const { now, add } = clock();
    // A step takes at most 4 minutes, so that the limit allows for two of them and the rest.
    const [step, evaluation, save, every] = [
      1 + random(4 * MINUTE),
      random(MINUTE),
      random(10_000),
      1 + random(9),
    ];
    const timer = new SaveTimer(600, now);
    // Held-out data is evaluated before the first step.
    await timer.timeEvaluation(() => Promise.resolve(add(evaluation)));
    let safe = now() - evaluation;
    let began = safe;
    let saves = 0;
    for (let done = 1; done <= 60; done++) {
      add(step);
      const evaluates = done % every === 0;
      const due = timer.isDue(Number(evaluates) + Number((done + 1) % every === 0));
      if (evaluates) await timer.timeEvaluation(() => Promise.resolve(add(evaluation)));
      if (!due) continue;
      began = now();
      await timer.timeSave(() => Promise.resolve(add(save)));
      t.true(now() - safe < 10 * MINUTE + 1, `run ${run}, step ${done}: ${now() - safe}`);
      safe = began;
      saves++;
    }
    // No more often than needed: two steps, an evaluation and a save before the limit at the earliest.
    const least = 10 * MINUTE - 2 * step - 2 * evaluation - 2 * save;
    if (least > 0)
      t.true(saves <= (60 * (step + evaluation) + saves * save) / least + 1, `run ${run}: ${saves}`);
  }
});

test("a run shorter than the interval saves only its end, and a run with longer steps saves each", async (t) => {
  const { now, add } = clock();
  const short = new SaveTimer(600, now);
  for (let step = 0; step < 570; step++) {
    add(1000);
    t.false(short.isDue(0), `step ${step}`);
  }
  const long = new SaveTimer(600, now);
  for (let step = 0; step < 3; step++) {
    add(11 * MINUTE);
    t.true(long.isDue(0));
    await long.timeSave(() => Promise.resolve());
  }
});

test.serial(
  "by default a run saves before ten minutes have passed, and its bits don't depend on it",
  async (t) => {
    const whole = options({ saveEvery: "never", steps: 20 });
    t.deepEqual(savedAt(await collect(finetune(whole))), []);
    // Each reading of the clock is a minute later: a step takes one, a save one, and the work after it another.
    let at = 0;
    const timed = { ...options({ steps: 20 }), [CLOCK]: () => (at += MINUTE) };
    t.deepEqual(savedAt(await collect(finetune(timed))), [9, 15, 20]);
    t.true(adapterBytes(whole.output).equals(adapterBytes(timed.output)));
    // The uninterrupted run saved only its end, in real time.
    const plain = options({ steps: 20 });
    t.deepEqual(savedAt(await collect(finetune(plain))), [20]);
    t.true(adapterBytes(whole.output).equals(adapterBytes(plain.output)));
  },
);

test.serial("a run that resumes from a timed checkpoint ends with the same bits", async (t) => {
  const whole = options();
  await finetune(whole).result;
  let at = 0;
  const controller = new AbortController();
  const cut = { ...options(), [CLOCK]: () => (at += MINUTE), signal: controller.signal };
  const reading = async (): Promise<void> => {
    for await (const event of finetune(cut))
      if (event.type === "checkpoint") controller.abort(new Error("killed"));
  };
  await t.throwsAsync(reading(), { message: "killed" });
  const names = readdirSync(cut.output).filter((name) => name.startsWith("checkpoint-"));
  t.is(names.length, 1);
  t.true(Number(names[0]?.slice(11)) < 10, names.join());
  const events = await collect(finetune({ resume: cut.output }));
  t.like(
    events.find(({ type }) => type === "start"),
    { resumedFrom: Number(names[0]?.slice(11)) },
  );
  t.true(adapterBytes(whole.output).equals(adapterBytes(cut.output)));
});

test("a saveEvery of the wrong type is refused before anything is read", async (t) => {
  for (const saveEvery of [-1, 2.5, "soon", "10", true, [1], null])
    await t.throwsAsync(
      finetune({ ...given, output: join(temporary(), "out"), saveEvery } as FinetuneOptions).result,
      { code: "ERR_OPTION", message: /saveEvery/ },
    );
});
