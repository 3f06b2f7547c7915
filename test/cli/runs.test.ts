/** `lowrank runs`: a table of the runs in a folder, from its files alone. */
import { appendFileSync, cpSync, mkdirSync, symlinkSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";

import test from "ava";

import { finetune } from "../../src/index.js";
import { identifyProcess } from "../../src/runs/process-identity.js";
import type { RunSummary } from "../../src/runs/summary.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { started, stepped, writeRun } from "../runs/written.js";
import { quick } from "../train/quick.js";
import { ONE_LINE, runHere as run } from "./lowrank.js";

async function listed(folder: string): Promise<RunSummary[]> {
  const { status, stdout, stderr } = await run("runs", folder, "--json");
  if (status !== 0) throw new Error(stderr);
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as RunSummary);
}

test.serial("two runs with different rates, from a copy of their folder alone", async (t) => {
  const [home, copy] = [temporary(), join(temporary(), "copy")];
  const given = { model: tinyModel(), data: tinyData() };
  const results: number[] = [];
  for (const [name, lr] of [
    ["slow", 1e-3],
    ["fast", 1e-2],
  ] as const) {
    const more = { output: join(home, name), optimizer: { lr }, evalSplit: 0.2, evalEvery: 6 };
    const { loss, evalLoss } = await finetune(quick(given, "cpu", more)).result;
    results.push(loss as number, evalLoss as number);
  }
  cpSync(home, copy, { recursive: true });
  rmSync(home, { recursive: true });
  const runs = await listed(copy);
  t.deepEqual(
    runs.map(({ name, state, step, steps, learningRate }) => ({ name, state, step, steps, learningRate })),
    [
      { name: "slow", state: "ended", step: 12, steps: 12, learningRate: 1e-3 },
      { name: "fast", state: "ended", step: 12, steps: 12, learningRate: 1e-2 },
    ],
  );
  t.deepEqual(
    runs.flatMap(({ loss, evalLoss }) => [loss, evalLoss]),
    results,
  );
  const { status, stdout, stderr } = await run("runs", copy);
  t.is(status, 0);
  t.is(stderr, "");
  const lines = stdout.trimEnd().split("\n");
  t.regex(lines[0] as string, /^run +state +model +rank +rate +steps +loss +held-out +best +begun$/);
  const figures = results.map((value) => value.toFixed(4));
  t.regex(
    lines[1] as string,
    new RegExp(String.raw`^slow +ended +\S+ +4 +1\.00e-3 +12/12 +${figures[0]} +${figures[1]} `),
  );
  t.regex(
    lines[2] as string,
    new RegExp(String.raw`^fast +ended +\S+ +4 +1\.00e-2 +12/12 +${figures[2]} +${figures[3]} `),
  );
  t.is(lines.length, 3);
});

test.serial("the state of each run", async (t) => {
  const home = temporary();
  const steps = [started(10), stepped(1, 10), stepped(2, 10)];
  const lock = (name: string, holder: object): void =>
    writeFileSync(
      join(home, name, "run.lock"),
      JSON.stringify({ ...identifyProcess(), token: "a", ...holder }),
    );
  writeRun(join(home, "killed"), steps);
  writeRun(join(home, "running"), steps);
  lock("running", {});
  writeRun(join(home, "dead"), steps);
  lock("dead", { started: "another boot/1", ...(process.platform === "linux" ? {} : { pid: 2 ** 22 }) });
  writeRun(join(home, "far"), steps);
  lock("far", { host: `not-${hostname()}` });
  writeRun(join(home, "preparing"), []);
  lock("preparing", {});
  const end = { type: "end", adapter: "a", loss: 1, evalLoss: 2, steps: 2, seconds: 1 };
  writeRun(join(home, "stopped"), [...steps, { ...end, stopped: true } as { type: string }]);
  writeRun(join(home, "deep", "er", "ended"), [...steps, { ...end, stopped: false } as { type: string }]);
  const failure = "step 3: the loss is NaN; try a lower learning rate";
  writeRun(join(home, "failed"), [...steps, { type: "failed", message: failure } as { type: string }]);
  writeRun(join(home, "went-on"), [
    ...steps,
    { type: "eval", step: 0, loss: 1 } as { type: string },
    { type: "eval", step: 2, loss: 3 } as { type: string },
    started(20, { resumedFrom: 2 }),
  ]);
  appendFileSync(join(home, "killed", "events.jsonl"), 'torn\n{"type":"step","at":1,"step":3');
  // None of these is a run.
  writeRun(join(home, "checkpoint-4"), steps);
  writeRun(join(home, "node_modules", "x"), steps);
  mkdirSync(join(home, "theirs", "events.jsonl"), { recursive: true });
  writeRun(join(home, "so", "deep", "that", "nobody", "looks"), steps);
  if (process.platform !== "win32") symlinkSync(home, join(home, "round"));
  const runs = await listed(home);
  t.deepEqual(Object.fromEntries(runs.map(({ name, state }) => [name.replaceAll("\\", "/"), state])), {
    killed: "interrupted",
    running: "running",
    dead: "interrupted",
    far: "unknown",
    preparing: "running",
    stopped: "stopped",
    "deep/er/ended": "ended",
    failed: "failed",
    "went-on": "interrupted",
  });
  const of = (name: string): RunSummary | undefined => runs.find((one) => one.name === name);
  t.like(of("killed"), { step: 2, loss: 1 + 3 / Math.sqrt(2), damaged: 1 });
  t.like(of("preparing"), { step: 0, steps: null, loss: null, model: null });
  t.like(of("went-on"), { step: 2, steps: 20, evalLoss: 3, bestEvalLoss: 3 });
  const { stdout } = await run("runs", home);
  t.true(stdout.includes(`failed: ${failure}\n`));
  t.regex(stdout, /^killed: ignored 1 unreadable line of events\.jsonl/m);
  // An output folder itself is a run, too.
  t.deepEqual(
    (await listed(join(home, "stopped"))).map(({ name }) => name),
    ["."],
  );
});

test.serial("a folder without runs, a missing folder, and files that belong to no run", async (t) => {
  const home = temporary();
  for (const [folder, message] of [
    [home, /holds no run: there is no events\.jsonl in it/],
    [join(home, "absent"), /absent: there is no such folder/],
  ] as const) {
    const { status, stdout, stderr } = await run("runs", folder);
    t.is(status, 1);
    t.is(stdout, "");
    t.regex(stderr, message);
    t.regex(stderr, ONE_LINE);
  }
  writeFileSync(join(home, "file"), "");
  t.regex((await run("runs", join(home, "file"))).stderr, /is a file; give a folder of runs/);
  writeRun(join(home, "good"), [started(3)]);
  writeRun(join(home, "theirs"), []);
  writeFileSync(join(home, "theirs", "events.jsonl"), "mine\n");
  writeRun(join(home, "later"), []);
  writeFileSync(
    join(home, "later", "events.jsonl"),
    '{"type":"events","at":1,"version":9,"line":[{"lineage":"a"}]}\n',
  );
  const { status, stdout, stderr } = await run("runs", home);
  t.is(status, 0);
  t.regex(stdout, /^good /m);
  t.regex(stdout, /^good: the run's process is gone; it had saved no checkpoint$/m);
  t.is(stdout.split("\n").length, 4);
  t.regex(stderr, /^lowrank: warning: .*theirs.*not written by a run/m);
  t.regex(stderr, /^lowrank: warning: .*later.*version 9 of the format/m);
});
