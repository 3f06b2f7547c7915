/** Killed runs and extended runs: how much work is lost, and which run they equal. */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { finetune, optim, type FinetuneOptions, type TrainEvent } from "../../src/index.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { programPath } from "../programs.js";
import { adapterBytes, collect, quick } from "./quick.js";

const given = { model: tinyModel(), data: tinyData() };
const options = (more: Partial<FinetuneOptions> = {}): FinetuneOptions & { output: string } =>
  quick(given, "cpu", { lora: { r: 2, loraDropout: 0.1 }, ...more }) as FinetuneOptions & { output: string };

const of = <T extends TrainEvent["type"]>(events: readonly TrainEvent[], type: T) =>
  events.filter((event): event is Extract<TrainEvent, { type: T }> => event.type === type);
const recorded = (output: string): { type: string; step?: number }[] =>
  readFileSync(join(output, "events.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { type: string; step?: number });
const stepsOf = (output: string): number[] =>
  recorded(output).flatMap(({ type, step }) => (type === "step" ? [step as number] : []));
const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i + 1);

const child = programPath("test/train/killed-child");

test.serial(
  "a run with default options that is killed at a random moment resumes from less than ten minutes before",
  async (t) => {
    let whole: string | undefined;
    for (let round = 0; round < 4; round++) {
      const output = join(temporary(), "out");
      const step = 10 + Math.floor(Math.random() * 60);
      const argv = [child, given.model, given.data, output, String(step)];
      const { signal, stderr } = spawnSync(process.execPath, argv, { encoding: "utf8" });
      t.is(signal, "SIGKILL", stderr);
      // By that clock a step takes a minute, and more if a checkpoint is saved after it.
      const last = stepsOf(output).at(-1) ?? step;
      t.true(existsSync(join(output, "run.lock")));
      const events = await collect(finetune({ resume: output, steps: 400 }));
      const from = of(events, "start")[0]?.resumedFrom ?? 0;
      t.true(
        from > 0 && Math.max(last, step) - from < 10,
        `killed at ${step} (${last}), resumed from ${from}`,
      );
      t.deepEqual(stepsOf(output), upTo(400));
      if (whole === undefined) {
        const { schedule, gradientAccumulation } = { schedule: "constant", gradientAccumulation: 1 } as const;
        const uncut = { ...given, device: "cpu", steps: 400, schedule, gradientAccumulation };
        whole = join(temporary(), "out");
        await finetune({ ...uncut, output: whole, lora: { r: 2, loraDropout: 0.1 } }).result;
      }
      t.true(adapterBytes(output).equals(adapterBytes(whole)), `killed at ${step}`);
    }
  },
);

test.serial("with a constant schedule an extended run is bit-identical to one planned longer", async (t) => {
  // Across epochs, by steps and by epochs. For 30 steps the warm-up is 1, and for 40 it would be 2.
  const lengths: [Partial<FinetuneOptions>, Partial<FinetuneOptions>, number][] = [
    [{ steps: 30 }, { steps: 40 }, 40],
    [{ epochs: 1, steps: undefined }, { epochs: 2.5 }, NaN],
    [{ steps: 6 }, { epochs: 2 }, NaN],
  ];
  for (const [first, more, count] of lengths) {
    const held = { evalSplit: 0.2, evalEvery: 5 };
    const short = options({ schedule: "constant", ...held, ...first });
    const begun = await collect(finetune(short));
    const warmup = of(begun, "start")[0]?.warmup as number;
    const events = await collect(finetune({ resume: short.output, ...more }));
    const [start] = of(events, "start");
    // The warm-up is 3% of the first plan, rounded up, and does not change.
    t.is(start?.warmup, warmup);
    t.is(start?.resumedFrom, of(begun, "start")[0]?.steps as number);
    if (count > 0) t.is(start?.steps, count);
    t.false(of(events, "warning").some(({ message }) => message.includes("schedule")));
    const long = options({ schedule: "constant", ...held, steps: undefined, ...more, warmup });
    const planned = await collect(finetune(long));
    t.true(adapterBytes(short.output).equals(adapterBytes(long.output)), JSON.stringify(more));
    t.deepEqual(stepsOf(short.output), stepsOf(long.output));
    const evaluated = (all: readonly TrainEvent[]) =>
      of(all, "eval").map(({ step, loss }) => ({ step, loss }));
    const later = evaluated(planned).filter(({ step }) => step > (start?.resumedFrom as number));
    t.deepEqual(evaluated(events), later);
  }
});

test.serial("an extension that is stopped and resumed twice equals an uninterrupted one", async (t) => {
  const whole = options({ schedule: "constant", steps: 20, warmup: 1 });
  await finetune(whole).result;
  const cut = options({ schedule: "constant", steps: 6, warmup: 1 });
  await finetune(cut).result;
  const before = adapterBytes(cut.output);
  const run = finetune({ resume: cut.output, steps: 13 });
  for await (const event of run) if (event.type === "step" && event.step === 9) void run.stop();
  t.true((await run.result).stopped);
  // The adapter of the finished run stays until the extension is complete.
  t.true(adapterBytes(cut.output).equals(before));
  t.is((await finetune({ resume: cut.output }).result).steps, 13);
  t.is((await finetune({ resume: cut.output, steps: 20 }).result).steps, 20);
  t.true(adapterBytes(cut.output).equals(adapterBytes(whole.output)));
});

test.serial(
  "with a falling schedule the remainder follows the new length, the warm-up stays, and a warning says so",
  async (t) => {
    for (const schedule of ["linear", "cosine"] as const) {
      const short = options({
        schedule,
        steps: 40,
        batchSize: 1,
        gradientAccumulation: 1,
        optimizer: { lr: 0.01 },
      });
      await finetune(short).result;
      const events = await collect(finetune({ resume: short.output, steps: 60 }));
      const [warning] = of(events, "warning").filter(({ message }) => message.includes("schedule"));
      const factor = optim.schedule[schedule]({ warmup: 2, total: 60 });
      t.regex(
        warning?.message ?? "",
        new RegExp(
          `^resume: the ${schedule} schedule now ends at step 60 instead of 40: from step 41 on .*\\(${(0.01 * factor(40)).toPrecision(3)} at that step instead of 0\\.00\\)`,
        ),
      );
      t.is(of(events, "start")[0]?.warmup, 2);
      const rates = of(events, "step").map(({ learningRate }) => learningRate);
      t.deepEqual(
        rates,
        Array.from({ length: 20 }, (_, i) => 0.01 * factor(40 + i)),
      );
    }
  },
);

test.serial(
  "fewer steps than completed, or a missing checkpoint, is an error that says what to do",
  async (t) => {
    const done = options({ steps: 8 });
    await finetune(done).result;
    const before = adapterBytes(done.output);
    for (const [more, says] of [
      [
        { steps: 5 },
        /checkpoint-8 is after step 8, and steps is 5; give more steps, or resume from an earlier/,
      ],
      [
        { epochs: 0.5 },
        /checkpoint-8 is after step 8, and epochs 0\.5 ends at step \d; give more epochs, or resume from an earlier/,
      ],
    ] as const)
      await t.throwsAsync(finetune({ resume: done.output, ...more }).result, {
        code: "ERR_OPTION",
        message: says,
      });
    t.true(adapterBytes(done.output).equals(before));
    const none = options({ steps: 3, saveEvery: "never" });
    await finetune(none).result;
    t.deepEqual(
      readdirSync(none.output).filter((name) => name.startsWith("checkpoint-")),
      [],
    );
    await t.throwsAsync(finetune({ resume: none.output, steps: 6 }).result, {
      code: "ERR_FILE_NOT_FOUND",
      message: /no checkpoint/,
    });
  },
);

test.serial("the best adapter of an extended run is the best of both parts", async (t) => {
  const more = { evalSplit: 0.2, evalEvery: 2, patience: 50, schedule: "constant", warmup: 1 } as const;
  const whole = options({ ...more, steps: 16 });
  const { best } = await finetune(whole).result;
  const cut = options({ ...more, steps: 8 });
  await finetune(cut).result;
  const extended = await finetune({ resume: cut.output, steps: 16 }).result;
  t.deepEqual(extended.best, best);
  t.true(adapterBytes(cut.output).equals(adapterBytes(whole.output)));
});
