/**
 * Pauses: between two steps, with everything in memory, without effect on bits, on rates and on the times to save.
 */
import { dirname, join } from "node:path";
import { setTimeout as after } from "node:timers/promises";

import test from "ava";

import {
  finetune,
  manualSeed,
  nn,
  optim,
  tensor,
  Trainer,
  type FinetuneOptions,
  type TrainEvent,
} from "../../src/index.js";
import { RunReader } from "../../src/runs/summary.js";
import { CLOCK } from "../../src/train/finetune/finetuning.js";
import { SaveTimer } from "../../src/train/options/save-interval.js";
import { tinyData, tinyModel } from "../hashed.js";
import { adapterBytes, collect, quick } from "./quick.js";

const given = { model: tinyModel(), data: tinyData() };
const options = (more: Partial<FinetuneOptions> = {}): FinetuneOptions & { output: string } =>
  quick(given, "cpu", { lora: { r: 2, loraDropout: 0.1 }, ...more }) as FinetuneOptions & { output: string };

const types = (events: readonly { type: string }[]): string[] =>
  events.map(({ type }) => type).filter((type) => type !== "progress" && type !== "rows");

let straight: Promise<Buffer> | undefined;

/** Returns the adapter of a run that was never paused. */
function unpaused(): Promise<Buffer> {
  return (straight ??= (async () => {
    const run = options();
    await finetune(run).result;
    return adapterBytes(run.output);
  })());
}

test.serial("a run pauses after its step, does nothing meanwhile, and ends with the same bits", async (t) => {
  const one = options();
  const run = finetune(one);
  const events: TrainEvent[] = [];
  const reading = (async () => {
    for await (const event of run) {
      events.push(event);
      if (event.type === "step" && event.step === 4) void run.pause();
    }
  })();
  // Repeated calls of pause() are one pause.
  while (!events.some((event) => event.type === "paused")) await after(5);
  await Promise.all([run.pause(), run.pause()]);
  const at = events.findIndex((event) => event.type === "paused");
  const paused = events[at] as { step: number };
  t.true(paused.step >= 4 && paused.step < 12, `paused after step ${paused.step}`);
  t.like(events[at - 1], { type: "step", step: paused.step });
  const reader = new RunReader(join(one.output, "events.jsonl"), ".");
  const summary = async (): Promise<string | undefined> => (await reader.read())?.state;
  while ((await summary()) === "running") await after(5);
  t.is(await summary(), "paused");
  await after(300);
  t.is(events.length, at + 1, "a paused run sends no events");
  await run.resume();
  await reading;
  const resumed = events[at + 1] as { type: string; step: number; seconds: number };
  t.like(resumed, { type: "resumed", step: paused.step });
  t.true(resumed.seconds >= 0.29, `${resumed.seconds} s`);
  // The step after a pause is as fast as those before it.
  const steps = events.flatMap((event) => (event.type === "step" ? [event] : []));
  t.deepEqual(
    steps.map(({ step }) => step),
    Array.from({ length: 12 }, (_, i) => i + 1),
  );
  t.is((await run.result).steps, 12);
  t.true(adapterBytes(one.output).equals(await unpaused()));
  t.is(await summary(), "ended");
});

test.serial(
  "a run that is asked immediately pauses before its first step, and may be resumed before that",
  async (t) => {
    const one = options();
    const run = finetune(one);
    await run.pause();
    await run.resume();
    const events = await collect(run);
    t.like(
      events.find(({ type }) => type === "paused"),
      { step: 0 },
    );
    t.true(adapterBytes(one.output).equals(await unpaused()));

    const other = finetune(options({ steps: 3 }));
    const pause = other.pause();
    await other.resume();
    await pause;
    t.false(types(await collect(other)).includes("paused"));
    // After the end of a run both calls do nothing.
    await other.pause();
    await other.resume();
  },
);

test.serial("a paused run is stopped with a checkpoint, and resumed to the same bits", async (t) => {
  const one = options({ saveEvery: "never" });
  const run = finetune(one);
  for await (const event of run) {
    if (event.type === "step" && event.step === 5) void run.pause();
    if (event.type === "paused") break;
  }
  const result = await run.stop();
  t.true(result.stopped && result.steps >= 5 && result.steps < 12);
  const rest = await collect(run);
  t.deepEqual(types(rest), ["checkpoint", "end"]);
  await finetune({ resume: one.output }).result;
  t.true(adapterBytes(one.output).equals(await unpaused()));
});

test.serial("a paused run is aborted at once", async (t) => {
  const controller = new AbortController();
  const run = finetune(options({ signal: controller.signal }));
  await run.pause();
  const reason = new Error("enough");
  controller.abort(reason);
  t.is(await t.throwsAsync(run.result), reason);
});

test.serial("a run can be paused again and again", async (t) => {
  const one = options();
  const run = finetune(one);
  const events: TrainEvent[] = [];
  for await (const event of run) {
    events.push(event);
    if (event.type === "step") void run.pause();
    if (event.type === "paused") setTimeout(() => void run.resume(), 2);
  }
  t.true(types(events).filter((type) => type === "paused").length >= 4);
  t.is(
    types(events).filter((type) => type === "paused").length,
    types(events).filter((type) => type === "resumed").length,
  );
  t.true(adapterBytes(one.output).equals(await unpaused()));
});

test.serial("paused time counts neither in rates nor in the times to save", async (t) => {
  let at = 0;
  const timer = new SaveTimer(600, () => at);
  at += 60_000;
  t.false(timer.isDue(0));
  await timer.excludePause(() => Promise.resolve(void (at += 3_600_000)));
  at += 60_000;
  t.false(timer.isDue(0), "two minutes of training");
  at += 420_000;
  t.true(timer.isDue(0));

  // A clock that advances only while the run is paused.
  let clock = 0;
  const paced = { ...options({ saveEvery: "10m" }), [CLOCK]: () => clock };
  const run = finetune(paced);
  const events: TrainEvent[] = [];
  for await (const event of run) {
    events.push(event);
    if (event.type === "step" && event.step === 4) void run.pause();
    if (event.type === "paused") {
      clock += 3_600_000;
      await after(1000);
      void run.resume();
    }
  }
  t.like(
    events.find(({ type }) => type === "resumed"),
    { seconds: 3600 },
  );
  const saved = events.flatMap((event) => (event.type === "checkpoint" ? [event.step] : []));
  t.deepEqual(saved, [12], "no checkpoint was due");
  const [before, ...later] = events.flatMap((event) =>
    event.type === "step" && event.step >= 4 ? [event.tokensPerSecond] : [],
  );
  // Ten steps of some milliseconds each; an additional second would make the rate a hundred times lower.
  t.true(Math.min(...later) > (before as number) / 20, `${before} and ${later.join(", ")}`);
});

test.serial("an evaluation pauses between two of its batches, and can be stopped there", async (t) => {
  const more = { evalSplit: 0.5, evalEvery: 4, batchSize: 1 };
  const plain = options(more);
  const evals = (events: readonly TrainEvent[]): number[] =>
    events.flatMap((event) => (event.type === "eval" ? [event.loss] : []));
  const expected = evals(await collect(finetune(plain)));
  const one = options(more);
  const run = finetune(one);
  // Held-out rows are evaluated before the first step.
  await run.pause();
  await run.resume();
  const events = await collect(run);
  const order = types(events);
  t.true(order.indexOf("paused") < order.indexOf("eval"), order.join(" "));
  t.deepEqual(evals(events), expected);
  t.true(adapterBytes(one.output).equals(adapterBytes(plain.output)));

  const stopped = finetune(options(more));
  await stopped.pause();
  t.like(await stopped.stop(), { stopped: true, steps: 0 });
});

test.serial("a Trainer can be paused, too", async (t) => {
  const train = async (pausing: boolean): Promise<Float32Array> => {
    manualSeed(3);
    const model = new nn.Linear(4, 4, { device: "cpu" });
    const x = tensor(
      Float32Array.from({ length: 8 }, (_, i) => Math.sin(i)),
      { shape: [2, 4] },
    );
    const trainer = new Trainer({
      model,
      optimizer: new optim.AdamW(model.parameters(), { lr: 1e-2 }),
      data: Array.from({ length: 20 }, () => x),
      loss: (own, batch) => own.forward(batch).pow(2).mean(),
    });
    const told: string[] = [];
    for await (const event of trainer) {
      told.push(event.type);
      if (pausing && event.type === "step" && event.step === 3) void trainer.pause();
      if (event.type === "paused") void trainer.resume();
    }
    t.is(told.includes("paused"), pausing);
    t.is(told.includes("resumed"), pausing);
    return (await model.weight.data()) as Float32Array;
  };
  t.deepEqual(await train(true), await train(false));
});

test.serial("a paused run keeps its process alive", async (t) => {
  const { spawnSync } = await import("node:child_process");
  const main = new URL("../../src/index.ts", import.meta.url).href;
  const { output, ...rest } = options();
  const program = `
    const { finetune } = await import(${JSON.stringify(main)});
    const run = finetune(${JSON.stringify({ ...rest, output })});
    setTimeout(() => void run.resume(), 4000).unref();
    await run.pause();
    console.log("paused");
    await run.result;
    console.log("done");
  `;
  const argv = ["--import", "tsx", "--input-type=module", "--eval", program];
  const ended = spawnSync(process.execPath, argv, {
    encoding: "utf8",
    cwd: dirname(new URL(import.meta.url).pathname),
  });
  t.is(ended.stdout, "paused\ndone\n", ended.stderr);
});
