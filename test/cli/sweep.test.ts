/** `lowrank sweep`: a file with a space, the table of trials, its continuation after Ctrl-C, and wrong files. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import type { SweepEndEvent, SweepEvent, TrialSummary } from "../../src/train/sweep/events.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { lowrank, ONE_LINE, runHere as run } from "./lowrank.js";

const model = tinyModel();
const data = tinyData();

/** Writes a file of a sweep with lines in addition to the model and its data; returns its path. */
function config(lines: string, name = "sweep.yaml"): string {
  const file = join(temporary(), name);
  writeFileSync(file, `model: ${model}\ndata: ${data}\ndevice: cpu\nsteps: 4\n${lines}\n`);
  return file;
}

const GRID = `
eval-split: 0.2
eval-every: 2
batch-size: 2
grad-accum: 1
space:
  rank: [2, 4]
  targets: [[q_proj, v_proj], all-linear]
  lr: [1e-3, 1e-2]
`;

function eventsOf(stdout: string): SweepEvent[] {
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as SweepEvent);
}

test.serial("a grid of eight trials ends with a table, the best first", async (t) => {
  const output = join(temporary(), "sweep");
  const { status, stdout, stderr } = await run("sweep", "--config", config(GRID), "--output", output);
  t.is(status, 0, stderr);
  t.is(stderr, "");
  const lines = stdout.trimEnd().split("\n");
  t.regex(lines[0] as string, /^ +trials +8$/);
  t.regex(stdout, /8 trials side by side \(trial-001, .*\) on cpu: [\d.]+ MiB at most/);
  const head = lines.findIndex((line) => line.startsWith("trial "));
  t.regex(lines[head] as string, /^trial +rank +targets +lr +steps +loss +held-out loss +state$/);
  const rows = lines.slice(head + 1, head + 9);
  const losses = rows.map((row) => Number(row.split(/ {2,}/)[6]));
  t.deepEqual(
    losses,
    losses.toSorted((a, b) => a - b),
  );
  t.regex(rows.join("\n"), /^trial-\d{3} +2 +q_proj\+v_proj +0\.001 +4 +[\d.]+ +[\d.]+ +done$/m);
  const [best] = rows as [string];
  t.is(lines.at(-1), `best adapter ${output}/${best.slice(0, 9)}`);
  t.true(existsSync(join(output, best.slice(0, 9), "adapter_model.safetensors")));
  // The same command has nothing left to do.
  const again = await run("sweep", "--config", config(GRID), "--output", output);
  t.is(again.status, 0);
  t.regex(again.stdout, /trials +8, 8 of them finished/);
  const runs = await run("runs", output);
  t.is(runs.stdout.trimEnd().split("\n").length, 9);
});

test.serial("--json prints one event per line, of each trial with its name", async (t) => {
  const output = join(temporary(), "sweep");
  const json = { model, data, device: "cpu", steps: 2, space: { seed: [0, 1] } };
  const file = join(temporary(), "sweep.json");
  writeFileSync(file, JSON.stringify(json));
  const { status, stdout } = await run("sweep", "--config", file, "--output", output, "--json");
  t.is(status, 0);
  const events = eventsOf(stdout);
  // Preparations that take long report their progress first.
  t.is(events.find(({ type }) => type !== "progress")?.type, "sweep");
  const steps = events.flatMap((event) => (event.type === "step" ? [`${event.trial} ${event.step}`] : []));
  t.deepEqual(steps.sort(), ["trial-001 1", "trial-001 2", "trial-002 1", "trial-002 2"]);
  const end = events.at(-1) as SweepEndEvent;
  t.is(end.type, "swept");
  t.deepEqual(end.trials.map(({ name }) => name).sort(), ["trial-001", "trial-002"]);
});

test.serial("random draws, halving and options of the command line", async (t) => {
  const output = join(temporary(), "sweep");
  const file = config(`
seed: 5
space-seed: 3
trials: 4
halving: {every: 2, keep: 0.5}
side-by-side: 4
space:
  lr: {min: 1.0e-5, max: 1.0e-2, log: true}
`);
  const { status, stdout, stderr } = await run("sweep", "--config", file, "--output", output, "--steps", "5");
  t.is(status, 0, stderr);
  t.regex(stderr, /warning: there are no held-out rows: trials are ranked by the mean loss/);
  t.is(stdout.match(/halted: not among the best at step 2/g)?.length, 2);
  t.is(stdout.match(/halted: not among the best at step 4/g)?.length, 1);
  t.is(stdout.match(/^trial-\d{3} done at step 5/gm)?.length, 1);
  const { trials } = JSON.parse(readFileSync(join(output, "sweep.json"), "utf8")) as {
    trials: (TrialSummary & { options: { seed: number } })[];
  };
  t.is(trials[0]?.options.seed, 5);
});

test.serial("Ctrl-C saves the trials, and the same command continues", async (t) => {
  const output = join(temporary(), "sweep");
  const file = config("save-every: never\nspace: {rank: [2, 3, 4]}\nside-by-side: 2");
  const argv = ["sweep", "--config", file, "--output", output, "--steps", "400", "--json"];
  const { status, stderr } = await lowrank(argv, {
    signal: ["SIGINT", "step"],
    env: { LOWRANK_NO_GPU: "1" },
  });
  t.is(status, 130);
  t.regex(stderr, /finishing the step and saving/);
  t.regex(stderr, /stopped with 0 of 3 trials finished; the same command continues with the others/);
  t.true(existsSync(join(output, "trial-001", "adapter_model.safetensors")));
  const { stdout, status: again } = await lowrank(argv, { env: { LOWRANK_NO_GPU: "1" } });
  t.is(again, 0);
  const events = eventsOf(stdout);
  const from = events.flatMap((event) => (event.type === "start" ? [event.resumedFrom] : []));
  t.true((from[0] as number) > 0);
  t.true(
    (events.at(-1) as SweepEndEvent).trials.every(({ state, steps }) => state === "done" && steps === 400),
  );
});

const WRONG: Record<string, [lines: string, message: RegExp]> = {
  "no space": ["", /there is no space; give the values to compare/],
  "an empty space": ["space: {}", /there is no space; give the values to compare/],
  "a space without a value": ["space:", /there is no space; give the values to compare/],
  "a space that is a list": ["space: [1]", /space must have a list of values for each option/],
  "an unknown key": [
    "ranks: 3\nspace: {rank: [2]}",
    /unknown key "ranks" \(did you mean rank\?\); known are/,
  ],
  "an unknown key in the space": [
    "space: {rnak: [2]}",
    /space: unknown key "rnak" \(did you mean rank\?\); known are rank, alpha/,
  ],
  "a wrong value": ["space: {rank: [2, x]}", /space: rank: "x" is not a number/],
  "a wrong common value": ["batch-size: 0\nspace: {rank: [2]}", /batch-size: .*at least 1/],
  "an empty list": ["space: {rank: []}", /rank in the space has no values/],
  "a plain value in the space": [
    "space: {rank: 2}",
    /rank in the space must be a list of values, or a range/,
  ],
  "several models": [
    "space: {model: [a, b]}",
    /an option of the model, its data or its storage in the space/,
  ],
  "a value that is also given for all": [
    "rank: 4\nspace: {rank: [2]}",
    /rank is in the space, and is given for all/,
  ],
  "a wrong number of trials": [
    "trials: 1.5\nspace: {rank: [2]}",
    /trials must be a whole number of at least 1, got 1\.5/,
  ],
  "more trials than combinations": [
    "trials: 3\nspace: {rank: [2]}",
    /trials is 3, and the space has only 1 combinations/,
  ],
  "a wrong number side by side": [
    "side-by-side: 0\nspace: {rank: [2]}",
    /side-by-side must be a whole number/,
  ],
  "a wrong halving": ["halving: 2\nspace: {rank: [2]}", /halving must have the key every, and may have keep/],
  "a wrong share of halving": [
    "halving: {every: 2, keep: 3}\nspace: {rank: [2]}",
    /halving\.keep must be above 0 and below 1, got 3/,
  ],
  "an option of a single run": ["dashboard: 8080\nspace: {rank: [2]}", /unknown key "dashboard"/],
  "no YAML": ["space: {rank: [2", /not YAML/],
};

for (const [name, [lines, message]] of Object.entries(WRONG)) {
  test.serial(`one line, and status 2: ${name}`, async (t) => {
    const file = config(lines);
    const output = join(temporary(), "out");
    const { status, stderr } = await run("sweep", "--config", file, "--output", output);
    t.is(status, 2, stderr);
    t.regex(stderr, ONE_LINE);
    t.true(stderr.startsWith(`lowrank: ${file}: `), stderr);
    t.regex(stderr, message);
    t.false(existsSync(output));
  });
}

test.serial("a missing file, no file, and a folder with another sweep", async (t) => {
  const missing = await run("sweep", "--config", "none.yaml");
  t.is(missing.status, 1);
  t.regex(missing.stderr, /^lowrank: none\.yaml: cannot be read/);
  const none = await run("sweep");
  t.is(none.status, 2);
  t.regex(none.stderr, /give --config FILE: a YAML or JSON file with options and a space of values/);
  const output = join(temporary(), "sweep");
  const sweep = (lines: string): ReturnType<typeof run> =>
    run("sweep", "--config", config(lines), "--output", output);
  t.is((await sweep("space: {rank: [2]}")).status, 0);
  const other = await sweep("space: {rank: [3]}");
  t.is(other.status, 1);
  t.regex(other.stderr, ONE_LINE);
  t.regex(
    other.stderr,
    /contains another sweep: rank of trial-001 was 2, and is 3 now; replace it with --yes/,
  );
  t.is((await run("sweep", "--config", config("space: {rank: [3]}"), "--output", output, "--yes")).status, 0);
  t.deepEqual(
    readdirSync(output).filter((name) => name.includes("tmp") || name.endsWith(".lock")),
    [],
  );
});
