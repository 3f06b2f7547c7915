/** Sweeps whose process is killed: the same call continues each trial from its last checkpoint. */
import { spawnSync } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test, { type ExecutionContext } from "ava";
import { sweep, type SweepEvent, type SweepOptions, type SweepResult } from "../../src/index.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { programPath } from "../programs.js";
import { adapterBytes, collect, quick } from "./quick.js";

const given = { model: tinyModel(), data: tinyData() };
const child = programPath("test/train/killed-sweep");

type Options = SweepOptions & { output: string };

/** Returns the options of a sweep of four trials, whose adapters have the bits of a run alone. */
function options(more: Partial<SweepOptions> = {}): Options {
  const { lora: _, optimizer: _rate, ...common } = quick(given, "cpu", { steps: 8 });
  const space = { optimizer: { lr: [1e-2, 1e-3, 3e-3, 3e-2] } };
  return {
    ...common,
    saveEvery: 2,
    sideBySide: 1,
    output: join(temporary(), "sweep"),
    space,
    ...more,
  } as Options;
}

/** Runs a sweep in another process, which is killed once `trial` has ended `step` steps. */
function kill(t: ExecutionContext, killed: Options, trial: string, step: number): void {
  const args = [JSON.stringify(killed), trial, String(step)];
  const { signal, stderr } = spawnSync(process.execPath, [child, ...args], {
    encoding: "utf8",
  });
  t.is(signal, "SIGKILL", stderr);
}

async function run(options: Options): Promise<{ events: SweepEvent[]; result: SweepResult }> {
  const running = sweep(options);
  const events = await collect<SweepEvent>(running);
  return { events, result: await running.result };
}

/** Returns the step that each trial started from. */
const starts = (events: SweepEvent[]): Record<string, number> =>
  Object.fromEntries(
    events.flatMap((event) => (event.type === "start" ? [[event.trial, event.resumedFrom]] : [])),
  );

/** Checks that a sweep has the results and the adapters of another. */
function equal(
  t: ExecutionContext,
  [a, b]: [Options, Options],
  [result, expected]: [SweepResult, SweepResult],
): void {
  const figures = ({ trials }: SweepResult) =>
    trials.map(({ seconds: _seconds, recentLoss: _recent, ...trial }) => trial);
  t.deepEqual(figures(result), figures(expected));
  for (const { folder } of expected.trials)
    t.true(adapterBytes(join(a.output, folder)).equals(adapterBytes(join(b.output, folder))), folder);
}

for (const [name, more] of Object.entries<Partial<SweepOptions>>({
  "consecutive trials": { evalSplit: 0.25, evalEvery: 2 },
  "with comparisons": { halving: { every: 2, keep: 0.75 }, evalSplit: 0.25, evalEvery: 2, sideBySide: 2 },
}))
  test(`a sweep that is killed continues, with the bits of one that is not: ${name}`, async (t) => {
    const [whole, killed] = [options(more), options(more)];
    const expected = await run(whole);
    kill(t, killed, "trial-002", 5);
    const { events, result } = await run(killed);
    t.is(starts(events)["trial-002"], 4);
    equal(t, [killed, whole], [result, expected.result]);
  });

test("a sweep that replaces another and is killed continues, and replaces the rest", async (t) => {
  const [whole, replacing] = [options(), options({ overwrite: true })];
  await run({ ...replacing, steps: 3 });
  const expected = await run(whole);
  kill(t, replacing, "trial-002", 5);
  const { events, result } = await run({ ...replacing, overwrite: false });
  t.deepEqual(starts(events), { "trial-002": 4, "trial-003": 0, "trial-004": 0 });
  equal(t, [replacing, whole], [result, expected.result]);
});

test("a sweep that is killed before the first checkpoint of a trial restarts the trial", async (t) => {
  const [whole, killed] = [options(), options()];
  const expected = await run(whole);
  kill(t, killed, "trial-001", 1);
  const { events, result } = await run(killed);
  t.is(starts(events)["trial-001"], 0);
  equal(t, [killed, whole], [result, expected.result]);
});

test("a trial whose newest checkpoint is damaged is named, and the trial is not restarted", async (t) => {
  const [whole, killed] = [options(), options()];
  kill(t, killed, "trial-002", 5);
  const file = join(killed.output, "trial-002", "checkpoint-4", "adapter_model.safetensors");
  const bytes = readFileSync(file);
  bytes.subarray(-4).fill(0xff);
  writeFileSync(file, bytes);
  await t.throwsAsync(sweep(killed).result, {
    code: "ERR_FILE_FORMAT",
    message:
      /trial-002.checkpoint-4: the checkpoint is damaged.*the last intact one is .*checkpoint-2.*if .*trial-002 is removed$/s,
  });
  rmSync(join(killed.output, "trial-002"), { recursive: true });
  const expected = await run(whole);
  equal(t, [killed, whole], [(await run(killed)).result, expected.result]);
});
