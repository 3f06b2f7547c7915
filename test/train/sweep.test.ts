/** Sweeps: each adapter equals the adapter that finetune trains alone with the same options. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import {
  finetune,
  LowrankError,
  safetensors,
  sweep,
  type SweepEvent,
  type SweepOptions,
  type SweepResult,
  type TrialSummary,
} from "../../src/index.js";
import { RunFinder } from "../../src/runs/find.js";
import { applyValues } from "../../src/train/sweep/space.js";
import { testDevices } from "../devices.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { error } from "../parity/goldens.js";
import { rowsFile, seaAndLand, tinyEncoder } from "../tiny-encoder.js";
import { collect, quick } from "./quick.js";

const given = { model: tinyModel(), data: tinyData() };

/** Returns the options of a sweep over the tiny model, without the adapter's and the optimizer's. */
function options(space: SweepOptions["space"], more: Partial<SweepOptions> = {}): SweepOptions {
  const { lora: _, optimizer: _rate, ...common } = quick(given, "cpu", { steps: 6 });
  return { ...common, output: join(temporary(), "sweep"), space, ...more } as SweepOptions;
}

async function run(options: SweepOptions): Promise<{ events: SweepEvent[]; result: SweepResult }> {
  const running = sweep(options);
  const events = await collect<SweepEvent>(running);
  return { events, result: await running.result };
}

/** Trains a trial alone with finetune, and returns its folder. */
async function trainAlone(options: SweepOptions, { values }: TrialSummary): Promise<string> {
  const {
    space: _space,
    trials: _trials,
    spaceSeed: _seed,
    halving: _halving,
    sideBySide: _most,
    ...shared
  } = options;
  const output = join(temporary(), "alone");
  await finetune({ ...applyValues(shared, values), output }).result;
  return output;
}

/** Returns the greatest relative difference between the adapters of two folders, and whether all bits are equal. */
async function compare(a: string, b: string): Promise<{ difference: number; bits: boolean }> {
  const [one, other] = await Promise.all(
    [a, b].map((folder) => safetensors.load(join(folder, "adapter_model.safetensors"))),
  );
  let [difference, bits] = [0, true];
  for (const [name, tensor] of Object.entries(other as Awaited<ReturnType<typeof safetensors.load>>)) {
    const [found, expected] = await Promise.all([one?.[name]?.data(), tensor.data()]);
    difference = Math.max(difference, error(found as Float32Array, expected as Float32Array));
    bits &&= Buffer.from((found as Float32Array).buffer).equals(
      Buffer.from((expected as Float32Array).buffer),
    );
  }
  return { difference, bits };
}

/** Returns a classifier with dropout of this probability in the model itself. */
async function encoder(dropout: number): Promise<string> {
  const folder = await tinyEncoder();
  const file = join(folder, "config.json");
  const config = JSON.parse(readFileSync(file, "utf8")) as object;
  const drops = {
    hidden_dropout_prob: dropout,
    attention_probs_dropout_prob: dropout,
    classifier_dropout: dropout,
  };
  writeFileSync(file, JSON.stringify({ ...config, ...drops }));
  return folder;
}

const labelled = { data: rowsFile(seaAndLand(30)) };
const sgd = { optimizer: { type: "sgd" } } as const;
const two = { lora: { r: [2, 5] }, seed: [0, 3] };

/** Spaces and options, with the greatest number of trials in a group. */
const CASES: Record<string, [space: SweepOptions["space"], more?: Partial<SweepOptions>, together?: number]> =
  {
    "ranks, rates, targets and seeds": [
      {
        lora: { r: [2, 5], targetModules: [["q_proj", "v_proj"], "all-linear"] },
        optimizer: { lr: [1e-2] },
        seed: [0, 3],
      },
      {},
      8,
    ],
    "schedules, clipping, weight decay, alpha and optimizers": [
      {
        lora: { loraAlpha: [3, 16] },
        optimizer: { type: ["adamw", "lion"], weightDecay: [0.1] },
        schedule: ["cosine"],
        clipNorm: [0, 0.1],
      },
    ],
    // Adam divides a gradient by its size, which turns rounding of a gradient near 0 into a visible difference,
    // the most in the first step, whose means are this gradient alone.
    "batch sizes, accumulation and lengths of runs": [
      { batchSize: [1, 3], gradientAccumulation: [1, 2], steps: [3, 6] },
      { ...sgd, steps: undefined, batchSize: undefined, gradientAccumulation: undefined },
    ],
    "gradient checkpointing": [two, { gradientCheckpointing: true }],
    dropout: [{ lora: { r: [2, 5], loraDropout: [0, 0.3] }, seed: [0, 3] }],
    "initialisations, rank-stabilised scaling and DoRA": [
      { lora: { initLoraWeights: [true, "pissa", "orthogonal"], useRslora: [true, false] } },
    ],
    "DoRA, and LoRA+": [{ lora: { useDora: [true, false] }, optimizer: { loraPlusRatio: [1, 4] } }, sgd],
    "modules that are trained in full": [
      { lora: { modulesToSave: [["lm_head"], ["o_proj"]] }, seed: [0, 1] },
      sgd,
    ],
    "quantised weights": [two, { quantize: "nf4" }],
    "held-out rows by seed, and patience": [two, { evalSplit: 0.2, evalEvery: 2, patience: 1 }],
    "labelled rows, whose head is drawn by the seed": [
      two,
      { ...labelled, ...sgd, model: await encoder(0) },
      2,
    ],
    "packed rows, separately": [two, { packing: true, maxLength: 48 }, 1],
    "a model with dropout, separately": [two, { ...labelled, model: await encoder(0.1) }, 1],
  };

for (const [name, [space, more, together]] of Object.entries(CASES)) {
  test(`each adapter equals its run alone: ${name}`, async (t) => {
    const asked = options(space, more);
    const { events, result } = await run(asked);
    const sizes = events.flatMap((event) => (event.type === "group" ? [event.trials.length] : []));
    t.is(Math.max(...sizes), together ?? result.trials.length);
    t.true(result.trials.every(({ state }) => state === "done"));
    for (const trial of result.trials) {
      const [own, alone] = [join(asked.output as string, trial.folder), await trainAlone(asked, trial)];
      const { difference, bits } = await compare(own, alone);
      t.log(trial.name, JSON.stringify(trial.values), bits ? "bits" : difference);
      t.true(difference < 1e-6, `${trial.name}: ${difference}`);
      if (together === 1) t.true(bits, trial.name);
      const config = (folder: string): string => readFileSync(join(folder, "adapter_config.json"), "utf8");
      t.is(config(own), config(alone));
    }
  });
}

test("trials with rows of equal lengths give the bits of a run alone", async (t) => {
  const text = rowsFile(Array.from({ length: 20 }, (_, i) => ({ text: `the sea number ${10 + i}` })));
  const asked = options(
    { lora: { r: [2, 5], targetModules: [["q_proj"], "all-linear"] }, seed: [0, 3] },
    { data: text },
  );
  const { result } = await run(asked);
  t.is(result.trials.length, 8);
  for (const trial of result.trials) {
    const alone = await trainAlone(asked, trial);
    t.true((await compare(join(asked.output as string, trial.folder), alone)).bits, trial.name);
  }
});

test("the trials are ranked, and sweep.json has their settings and losses", async (t) => {
  const asked = options({ optimizer: { lr: [1e-5, 1e-2] } }, { evalSplit: 0.2, evalEvery: 3 });
  const { events, result } = await run(asked);
  t.deepEqual(
    result.trials.map(({ values }) => values["optimizer.lr"]),
    [1e-2, 1e-5],
  );
  const [best, worst] = result.trials as [TrialSummary, TrialSummary];
  t.true((best.evalLoss as number) < (worst.evalLoss as number));
  t.deepEqual(Object.keys(best.evaluations), ["0", "3", "6"]);
  const file = JSON.parse(readFileSync(join(asked.output as string, "sweep.json"), "utf8")) as {
    trials: (TrialSummary & { options: { optimizer: { lr: number } }; lineage: string; replaces: boolean })[];
  };
  t.deepEqual(
    file.trials.map((trial) => {
      const { options: _options, lineage: _lineage, replaces: _replaces, ...summary } = trial;
      return summary;
    }),
    result.trials,
  );
  t.is(file.trials[0]?.options.optimizer.lr, 1e-2);
  // Each trial's folder is a run's.
  const runs = await new RunFinder(asked.output as string).find();
  t.deepEqual(
    runs.runs.map(({ name, state, evalLoss }) => [name, state, evalLoss]).sort(),
    ["trial-001", "trial-002"].map((name) => [
      name,
      "ended",
      result.trials.find((trial) => trial.name === name)?.evalLoss,
    ]),
  );
  t.is(events.at(-1)?.type, "swept");
});

test("the best trials continue after each comparison, as if they had trained alone", async (t) => {
  const rates = [1e-5, 1e-4, 1e-3, 1e-2];
  const asked = options(
    { optimizer: { lr: rates } },
    { evalSplit: 0.2, evalEvery: 2, halving: { every: 2, keep: 0.5 } },
  );
  const { result } = await run(asked);
  t.deepEqual(
    result.trials.map(({ values, state, steps }) => [values["optimizer.lr"], state, steps]),
    [
      [1e-2, "done", 6],
      [1e-3, "halted", 4],
      [1e-4, "halted", 2],
      [1e-5, "halted", 2],
    ],
  );
  const [best] = result.trials as [TrialSummary];
  const { difference } = await compare(
    join(asked.output as string, best.folder),
    await trainAlone(asked, best),
  );
  t.true(difference < 1e-6);
  // A halted trial can be resumed as a separate run.
  const halted = result.trials.at(-1) as TrialSummary;
  const alone = await trainAlone(asked, halted);
  await finetune({ resume: join(asked.output as string, halted.folder) }).result;
  t.true((await compare(join(asked.output as string, halted.folder), alone)).difference < 1e-6);
});

test("a later group is compared with the trials of earlier groups", async (t) => {
  const asked = options(
    { optimizer: { lr: [1e-2, 1e-3, 1e-4, 1e-5] } },
    { evalSplit: 0.2, evalEvery: 2, halving: { every: 2 }, sideBySide: 2 },
  );
  const { events, result } = await run(asked);
  const groups = events.flatMap((event) => (event.type === "group" ? [event.trials] : []));
  t.deepEqual(groups, [
    ["trial-001", "trial-002"],
    ["trial-003", "trial-004"],
  ]);
  t.deepEqual(
    result.trials.map(({ name, state, steps }) => [name, state, steps]),
    [
      ["trial-001", "done", 6],
      ["trial-002", "halted", 2],
      ["trial-003", "halted", 2],
      ["trial-004", "halted", 2],
    ],
  );
});

test("a sweep that is stopped saves its trials, and continues in the same folder", async (t) => {
  const asked = options({ lora: { r: [2, 3, 4, 5] } }, { sideBySide: 2, steps: 8 });
  const running = sweep(asked);
  for await (const event of running)
    if (event.type === "step" && event.trial === "trial-003" && event.step === 3) void running.stop();
  const first = await running.result;
  t.true(first.stopped);
  const states = Object.fromEntries(first.trials.map(({ name, state }) => [name, state]));
  t.deepEqual(states, {
    "trial-001": "done",
    "trial-002": "done",
    "trial-003": "stopped",
    "trial-004": "stopped",
  });
  const { events, result } = await run(asked);
  t.deepEqual(
    events.flatMap((event) => (event.type === "sweep" ? [event.finished] : [])),
    [2],
  );
  // The trials resume from their checkpoints.
  const resumed = events.flatMap((event) =>
    event.type === "start" ? [[event.trial, event.resumedFrom > 0]] : [],
  );
  t.deepEqual(resumed.sort(), [
    ["trial-003", true],
    ["trial-004", true],
  ]);
  t.false(result.stopped);
  for (const trial of result.trials) {
    t.is(trial.state, "done");
    const { difference } = await compare(
      join(asked.output as string, trial.folder),
      await trainAlone(asked, trial),
    );
    t.true(difference < 1e-6, trial.name);
  }
  // More draws extend a finished sweep; other options do not belong to it.
  const wider = { ...asked, space: { lora: { r: [2, 3, 4, 5, 6] } } };
  const more = await run(wider);
  t.deepEqual(
    more.events.flatMap((event) => (event.type === "group" ? [event.trials] : [])),
    [["trial-005"]],
  );
  const other = await t.throwsAsync(sweep({ ...wider, steps: 9 }).result, { instanceOf: LowrankError });
  t.is(other?.code, "ERR_OUTPUT_EXISTS");
  t.regex(other?.message ?? "", /steps of trial-00\d was 8, and is 9 now; replace it with overwrite/);
});

test("an aborted sweep rejects with the signal's reason", async (t) => {
  const controller = new AbortController();
  const running = sweep({ ...options({ lora: { r: [2, 3] } }), signal: controller.signal });
  const reason = new Error("enough");
  for await (const event of running) if (event.type === "step") break;
  controller.abort(reason);
  t.is(await t.throwsAsync(running.result), reason);
});

test("a trial whose loss is not finite fails alone", async (t) => {
  const asked = options({ optimizer: { lr: [1e-2, 1e30] } });
  const { result } = await run(asked);
  t.deepEqual(
    result.trials.map(({ state }) => state),
    ["done", "failed"],
  );
  const [best, failed] = result.trials as [TrialSummary, TrialSummary];
  t.regex(failed.error ?? "", /the loss is NaN|gradient norm is/);
  const { difference } = await compare(
    join(asked.output as string, best.folder),
    await trainAlone(asked, best),
  );
  t.true(difference < 1e-6);
});

test("a paused sweep continues", async (t) => {
  const running = sweep(options({ lora: { r: [2, 3] } }));
  let paused = false;
  for await (const event of running) {
    if (event.type !== "step" || paused) continue;
    paused = true;
    await running.pause();
    await running.resume();
  }
  t.true((await running.result).trials.every(({ state }) => state === "done"));
});

test("a memory limit decides how many adapters train side by side", async (t) => {
  const asked = options({ lora: { r: [2, 3, 4, 5, 6, 7] } }, { steps: 2 });
  const needs = async (more: Partial<SweepOptions>): Promise<number[]> => {
    const { events } = await run({ ...asked, ...more, output: join(temporary(), "sweep") });
    return events.flatMap((event) =>
      event.type === "group" ? [event.memory.peakBytes + event.memory.mapped] : [],
    );
  };
  const [all] = (await needs({})) as [number];
  const [alone] = (await needs({ sideBySide: 1 })) as [number];
  const memory = Math.floor((all + alone) / 2);
  const groups = await needs({ memory });
  t.true(groups.length > 1 && groups.length < 6, groups.join());
  t.true(groups.every((bytes) => bytes <= memory));
  const short = await t.throwsAsync(
    sweep({ ...asked, memory: alone >> 1, output: join(temporary(), "sweep") }).result,
    { instanceOf: LowrankError },
  );
  t.is(short?.code, "ERR_OUT_OF_MEMORY");
  t.regex(
    short?.message ?? "",
    /trial-001 alone would need .* on cpu, and memory is .*; give gradientCheckpointing/,
  );
});

if (testDevices().length > 1) {
  test("several devices train different trials", async (t) => {
    const asked = options({ lora: { r: [2, 3, 4, 5] } }, { device: ["cpu", "gpu"] });
    const { events, result } = await run(asked);
    t.is(new Set(events.flatMap((event) => (event.type === "group" ? [event.device] : []))).size, 2);
    t.true(result.trials.every(({ state }) => state === "done"));
  });
}
