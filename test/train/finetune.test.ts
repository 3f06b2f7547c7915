import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import {
  finetune,
  loadModel,
  lora,
  memory,
  type FinetuneOptions,
  type StepEvent,
  type TrainEvent,
} from "../../src/index.js";
import { atRest } from "../at-rest.js";
import { testDevices } from "../devices.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { adapterBytes, collect, quick } from "./quick.js";

const model = tinyModel();
const data = tinyData();

const options = (device: string, more?: Partial<FinetuneOptions>): FinetuneOptions =>
  quick({ model, data }, device, more);

const steps = (events: TrainEvent[]): StepEvent[] => events.filter((event) => event.type === "step");

for (const device of testDevices()) {
  test.serial(`on ${device} the loss falls, the adapter is saved, and all memory is freed`, async (t) => {
    const live = (): number => memory(device as "cpu").live;
    const before = (await atRest(device)).live;
    const given = options(device, { evalSplit: 0.2, evalEvery: 5, saveEvery: 6, warmup: 1 });
    const run = finetune(given);
    const events = await collect(run);
    const result = await run.result;
    // A busy machine also reports the progress of reading the data.
    const kinds = events.map(({ type }) => type).filter((type) => type !== "progress");
    t.deepEqual(kinds.slice(0, 4), ["start", "rows", "eval", "step"]);
    t.is(kinds.at(-1), "end");
    t.deepEqual(
      steps(events).map(({ step }) => step),
      Array.from({ length: 12 }, (_, i) => i + 1),
    );
    const evals = events.filter((event) => event.type === "eval");
    t.deepEqual(
      evals.map(({ step }) => step),
      [0, 5, 10, 12],
    );
    t.true((evals.at(-1)?.loss ?? Infinity) < 0.95 * (evals[0]?.loss ?? 0), JSON.stringify(evals));
    t.deepEqual(
      events.filter((event) => event.type === "checkpoint").map(({ step }) => step),
      [6, 12],
    );
    t.is(result.steps, 12);
    t.false(result.stopped);
    t.is(result.adapter, given.output as string);
    t.is(result.evalLoss, evals.at(-1)?.loss as number);
    const rates = steps(events).map(({ learningRate }) => learningRate);
    // A warm-up of one step has the full rate.
    t.deepEqual(rates.slice(0, 2), [1e-2, 1e-2]);
    t.true(
      steps(events).every((step) => step.memoryBytes > 0 && step.gradNorm > 0 && step.tokensPerSecond > 0),
    );
    t.is(live(), before);
    const again = await loadModel(model, { device: device as "cpu" });
    const report = await lora.loadAdapter(again, result.adapter);
    t.is(report.adapted.length, 14);
    again.dispose();
    t.is(live(), before);
  });

  test.serial(`on ${device} a run that was stopped and resumed ends with the same bits`, async (t) => {
    const common = { lora: { r: 4, loraDropout: 0.1 }, steps: 10 };
    const whole = options(device, common);
    await finetune(whole).result;
    const cut = options(device, { ...common, saveEvery: 4 });
    const controller = new AbortController();
    const run = finetune({ ...cut, signal: controller.signal });
    const reading = async (): Promise<void> => {
      for await (const event of run)
        if (event.type === "step" && event.step === 6) controller.abort(new Error("enough"));
    };
    await t.throwsAsync(reading(), { message: "enough" });
    await t.throwsAsync(run.result, { message: "enough" });
    t.deepEqual(readdirSync(cut.output as string), ["checkpoint-4", "events.jsonl", "run.json"]);
    // The leftover of a process killed during a save.
    mkdirSync(join(cut.output as string, "checkpoint-6.tmp-1"));
    const resumed = finetune({ ...cut, resume: true });
    const events = await collect(resumed);
    t.deepEqual(
      readdirSync(cut.output as string).filter((name) => name.startsWith("checkpoint")),
      ["checkpoint-10", "checkpoint-4", "checkpoint-8"],
    );
    t.is(steps(events)[0]?.step, 5);
    t.true(adapterBytes(whole.output as string).equals(adapterBytes(cut.output as string)));
    const twice = options(device, common);
    await finetune(twice).result;
    t.true(adapterBytes(whole.output as string).equals(adapterBytes(twice.output as string)));
  });

  test.serial(
    `on ${device} stop() finishes the step and saves, and resuming equals the uninterrupted run`,
    async (t) => {
      const whole = options(device);
      await finetune(whole).result;
      const cut = options(device);
      const run = finetune(cut);
      for await (const event of run) if (event.type === "step" && event.step === 3) void run.stop();
      const result = await run.result;
      t.true(result.stopped);
      t.true(result.steps >= 3 && result.steps <= 5);
      t.true(existsSync(join(cut.output as string, `checkpoint-${result.steps}`, "run.json")));
      await finetune({ ...cut, resume: true }).result;
      t.true(adapterBytes(whole.output as string).equals(adapterBytes(cut.output as string)));
    },
  );

  test.serial(`on ${device} runs that are aborted leave nothing behind`, async (t) => {
    const before = (await atRest(device)).live;
    for (let i = 0; i < 50; i++) {
      const controller = new AbortController();
      const given = options(device, { signal: controller.signal, steps: 100_000 });
      const run = finetune(given);
      setTimeout(() => controller.abort(new Error(`abort ${i}`)), i * 3);
      await t.throwsAsync(run.result, { message: `abort ${i}` });
      t.is(memory(device as "cpu").live, before);
      t.false(existsSync(given.output as string));
    }
  });

  test.serial(`on ${device} gradients that are not finite end the run and keep the checkpoint`, async (t) => {
    const given = options(device, { clipNorm: 0, warmup: 0, saveEvery: 1, steps: 1 });
    await finetune(given).result;
    const run = finetune({ resume: given.output as string, optimizer: { lr: 1e30 }, steps: 12 });
    const failure = await t.throwsAsync(run.result, { code: "ERR_NOT_FINITE" });
    t.regex(failure?.message ?? "", /step \d+: .*checkpoint-\d+.*learning rate/);
    t.true(readdirSync(given.output as string).length > 0);
  });

  test.serial(`on ${device} one large batch and accumulated small ones give the same losses`, async (t) => {
    const common = { steps: 4, optimizer: { lr: 1e-3 }, warmup: 0 };
    const losses = async (batchSize: number, gradientAccumulation: number): Promise<number[]> => {
      const run = finetune(options(device, { ...common, batchSize, gradientAccumulation }));
      return steps(await collect(run)).map(({ loss }) => loss);
    };
    const [large, small] = [await losses(8, 1), await losses(1, 8)];
    // Different order of summation: f32 rounding over a few steps.
    for (const [i, loss] of large.entries())
      t.true(Math.abs(loss / (small[i] as number) - 1) < 1e-5, `${large} ${small}`);
  });
}

test("a step's loss is the mean over its trained tokens, for any batch size and packing", async (t) => {
  const rows = Array.from({ length: 5 }, (_, i) => ({
    prompt: "tell: ".repeat(1 + i),
    completion: "a whale ".repeat(5 - i),
  }));
  const file = join(temporary(), "rows.jsonl");
  writeFileSync(file, rows.map((row) => JSON.stringify(row)).join("\n"));
  for (const [batchSize, gradientAccumulation] of [
    [5, 1],
    [1, 5],
    [2, 3],
  ] as const) {
    const more = { data: file, evalData: file, steps: 1, batchSize, gradientAccumulation };
    const events = await collect(finetune({ ...options("cpu"), ...more }));
    const before = events.find((event) => event.type === "eval");
    const first = steps(events)[0];
    // Completions and their end tokens are trained on.
    t.is(
      before?.tokens,
      rows.reduce((n, { completion }) => n + completion.length + 1, 0),
    );
    t.is(first?.tokens, before?.tokens as number);
    // A fresh adapter adds nothing, so both are the same mean up to the rounding of another order of summation.
    t.true(Math.abs((first?.loss as number) / (before?.loss as number) - 1) < 1e-6);
  }
});

test("the first step has a learning rate, however short the run", async (t) => {
  const rates = async (count: number): Promise<number[]> =>
    steps(await collect(finetune(options("cpu", { steps: count })))).map(({ learningRate }) => learningRate);
  t.deepEqual(await rates(1), [1e-2]);
  t.deepEqual(await rates(2), [1e-2, 1e-2]);
  // 3% of 40 steps are rounded up to a warm-up of 2.
  t.deepEqual((await rates(40)).slice(0, 2), [5e-3, 1e-2]);
});

test("gradient checkpointing changes no bit, dropout included", async (t) => {
  const given = (): FinetuneOptions => options("cpu", { lora: { r: 4, loraDropout: 0.2 }, steps: 4 });
  const runs = [given(), { ...given(), gradientCheckpointing: true }];
  for (const one of runs) await finetune(one).result;
  const [plain, replayed] = runs.map((one) => adapterBytes(one.output as string)) as [Buffer, Buffer];
  t.true(plain.equals(replayed));
});

test("a loaded model keeps its adapter, and is restored after a failure", async (t) => {
  const own = await loadModel(model, { device: "cpu" });
  const controller = new AbortController();
  controller.abort(new Error("at once"));
  await t.throwsAsync(finetune({ ...options("cpu"), model: own, signal: controller.signal }).result, {
    message: "at once",
  });
  t.deepEqual(lora.adapters(own), []);
  await finetune({ ...options("cpu", { steps: 2 }), model: own }).result;
  t.deepEqual(lora.adapters(own), ["default"]);
  t.false(own.training);
  own.dispose();
});

test("options are validated before any work", async (t) => {
  const refused = (more: Partial<FinetuneOptions>, message: RegExp) =>
    t.throwsAsync(finetune({ model: "nowhere", data: "nowhere", ...more }).result, {
      code: "ERR_OPTION",
      message,
    });
  await refused({ lora: { r: 0 } }, /lora\.r.*0/);
  await refused({ lora: { r: -4 } }, /lora\.r.*-4/);
  await refused({ optimizer: { lr: Number.NaN } }, /optimizer\.lr.*NaN/);
  await refused({ optimizer: { lr: -1 } }, /optimizer\.lr/);
  await refused({ batchSize: 0 }, /batchSize/);
  await refused({ steps: 1.5 }, /steps/);
  await refused({ steps: 1, epochs: 1 }, /steps with epochs/);
  await refused({ lora: { loraDropout: 2 } }, /loraDropout/);
  await refused({ schedule: "sideways" as never }, /schedule/);
  await refused({ packin: true } as never, /no option packin/);
  await refused({ evalEvery: 2 }, /evalEvery/);
  await refused({ device: "meta:cpu" }, /^finetune: device must be one that computes .*, got "meta:cpu"$/);
});

test("held-out rows are taken from the training rows, for every seed", async (t) => {
  const file = join(temporary(), "rows.jsonl");
  const rows = Array.from({ length: 8 }, (_, i) => ({ text: i % 2 === 0 ? `Row ${i} says so.` : "" }));
  writeFileSync(file, rows.map((row) => JSON.stringify(row)).join("\n"));
  for (const seed of [0, 1, 2, 3, 4, 5]) {
    const given = { ...options("cpu"), data: file, seed, evalSplit: 0.25, steps: 1, evalEvery: 1 };
    const events = await collect(finetune(given));
    t.like(
      events.find(({ type }) => type === "start"),
      { examples: 3, evalExamples: 1 },
      `${seed}`,
    );
  }
});

test("an output folder that contains another run, or is a file, is refused", async (t) => {
  const given = options("cpu", { steps: 1 });
  await finetune(given).result;
  const before = adapterBytes(given.output as string);
  await t.throwsAsync(finetune(given).result, { code: "ERR_OUTPUT_EXISTS" });
  t.true(before.equals(adapterBytes(given.output as string)));
  await finetune({ ...given, overwrite: true, seed: 1 }).result;
  t.false(before.equals(adapterBytes(given.output as string)));
  const file = join(temporary(), "file");
  writeFileSync(file, "");
  await t.throwsAsync(finetune({ ...given, output: file }).result, { code: "ERR_OUTPUT_EXISTS" });
  await t.throwsAsync(finetune({ ...given, output: join(temporary(), "none"), resume: true }).result, {
    code: "ERR_FILE_NOT_FOUND",
  });
});

test("resuming with another adapter or other data is refused", async (t) => {
  const given = options("cpu", { steps: 2, saveEvery: 1 });
  await finetune(given).result;
  await t.throwsAsync(finetune({ ...given, resume: true, lora: { r: 2 } }).result, {
    code: "ERR_OPTION",
    message: /resume/,
  });
  await t.throwsAsync(finetune({ ...given, resume: true, matmulPrecision: "bf16" }).result, {
    code: "ERR_OPTION",
    message: /matmulPrecision was exact/,
  });
  await t.throwsAsync(finetune({ ...given, resume: true, seed: 7 }).result, {
    code: "ERR_OPTION",
    message: /seed/,
  });
  await t.throwsAsync(finetune({ ...given, resume: true, data: tinyData(30) }).result, {
    code: "ERR_OPTION",
    message: /data/,
  });
});
