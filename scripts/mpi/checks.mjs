// What must be true of a run on several ranks, with each launcher.
import assert from "node:assert/strict";
import { readdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isAlive, listLosses, readAdapter, runJob, startJob } from "../job.mjs";

const LOWRANK = "node_modules/.bin/lowrank";
const OPTIONS = ["--data", "rows.jsonl", "--batch-size", "4", "--grad-accum", "2", "--max-length", "64"];
const RUN = ["finetune", ...OPTIONS, "--eval-split", "0.2", "--eval-every", "2", "--device", "cpu", "--json"];
const LONG = ["finetune", ...OPTIONS, "--steps", "12", "--save-every", "2", "--device", "cpu", "--json"];
/** The time within which a job must end when a rank is killed. */
const KILLED_MS = 10_000;

/** The bytes of a row that is filled with spaces: four ranks each read a part of 64 such rows. */
const WIDE = 68_000;

/** Writes the data of the runs into a project: rows, and the same rows filled with spaces. */
export function writeRows(folder) {
  const rows = Array.from({ length: 64 }, (_, i) => ({
    prompt: `The captain of ship ${i} said:`,
    completion: " the sea is wide.".repeat(1 + (i % 5)),
  }));
  for (const [name, width] of [
    ["rows.jsonl", 0],
    ["wide.jsonl", WIDE],
  ])
    writeFileSync(join(folder, name), rows.map((row) => `${JSON.stringify(row).padEnd(width)}\n`).join(""));
}

/** Runs without a launcher, which the runs with launchers are compared with. */
export async function runAlone(folder) {
  return listLosses(await runJob(LOWRANK, [...RUN, "--steps", "4", "--output", "alone"], { folder }));
}

/** The checks by their titles. Each gets the project, the launcher, and the losses of one process. */
export const CHECKS = {
  "1, 2 and 4 ranks give the losses of one process": async ({ folder, launcher, alone, output }) => {
    for (const ranks of [1, 2, 4])
      compareLosses(await runRanks(ranks, launcher, folder, output(`losses-${ranks}`)), alone, ranks);
  },

  "ranks that read parts of the data give the losses of one process": async ({
    folder,
    launcher,
    alone,
    output,
  }) => {
    for (const ranks of [2, 4]) {
      const wide = output(`wide-${ranks}`);
      compareLosses(await runRanks(ranks, launcher, folder, wide, "wide.jsonl"), alone, ranks);
    }
  },

  "two runs give the same adapter, bit for bit": async ({ folder, launcher, output }) => {
    for (const ranks of [2, 4]) {
      await runRanks(ranks, launcher, folder, output(`again-${ranks}`));
      const [first, second] = ["losses", "again"].map((name) => join(folder, output(`${name}-${ranks}`)));
      assert.ok(readAdapter(first).equals(readAdapter(second)), `${ranks} ranks`);
    }
  },

  "ranks with other options end with one error": async ({ folder, launcher, output }) => {
    const command = (rate) => ["-n", "1", LOWRANK, ...RUN, "--lr", rate, "--output", output("differ")];
    const job = await startJob("mpirun", [...command("1e-3"), ":", ...command("2e-3")], {
      folder,
      env: launcher.env,
    }).ended;
    refused(job, /the ranks differ in --optimizer: .*0\.001.* on rank 0, .*0\.002.* on rank 1/, 1);
  },

  "more ranks than rows end with one error": async ({ folder, launcher, output }) => {
    const few = ["finetune", "--data", "rows.jsonl", "--batch-size", "1", "--grad-accum", "2"];
    const args = ["-n", "3", LOWRANK, ...few, "--device", "cpu", "--json", "--output", output("few")];
    const job = await startJob("mpirun", args, { folder, env: launcher.env }).ended;
    refused(job, /the 2 rows of a step cannot be divided among 3 ranks/, 1);
  },

  "without lowrank-mpi every rank names it": async ({ folder, launcher, output }) => {
    const [installed, away] = ["lowrank-mpi", "away"].map((name) => join(folder, "node_modules", name));
    renameSync(installed, away);
    try {
      const job = await startJob("mpirun", ["-n", "2", LOWRANK, ...RUN, "--output", output("missing")], {
        folder,
        env: launcher.env,
      }).ended;
      refused(job, /the package lowrank-mpi is not installed: .*npm install lowrank-mpi/, 2);
    } finally {
      renameSync(away, installed);
    }
  },

  "a killed rank ends the job, and the run resumes to the same bits": async ({
    folder,
    launcher,
    output,
  }) => {
    const start = (name, onEvent) =>
      startJob("mpirun", ["-n", "2", LOWRANK, ...LONG, "--output", output(name)], {
        folder,
        env: launcher.env,
        onEvent,
      });
    const whole = await start("whole").ended;
    assert.equal(whole.status, 0, whole.stderr);
    let pids = [];
    let killed = 0;
    const job = start("killed", (event) => {
      if (event.type === "start") pids = event.ranks.map(({ pid }) => pid);
      if (event.type !== "checkpoint" || killed > 0) return;
      killed = performance.now();
      process.kill(pids[1], "SIGKILL");
    });
    const { status } = await job.ended;
    assert.notEqual(status, 0);
    assert.ok(killed > 0, "no checkpoint was saved");
    while (pids.some(isAlive) && performance.now() - killed < KILLED_MS) await sleep(50);
    assert.deepEqual(pids.filter(isAlive), [], "ranks outlive the killed one");
    assert.ok(performance.now() - killed < KILLED_MS, "the job ends too late");
    const saved = readdirSync(join(folder, output("killed"))).filter((name) => /^checkpoint-\d+$/.test(name));
    assert.ok(saved.length > 0 && !saved.includes("checkpoint-12"), saved.join());
    await runJob("mpirun", ["-n", "2", LOWRANK, "finetune", "--resume", output("killed"), "--json"], {
      folder,
      env: launcher.env,
    });
    const [one, other] = ["whole", "killed"].map((name) => readAdapter(join(folder, output(name))));
    assert.ok(one.equals(other), "the resumed run has another adapter");
  },
};

function runRanks(ranks, launcher, folder, output, data = "rows.jsonl") {
  const run = RUN.map((option) => (option === "rows.jsonl" ? data : option));
  const command = [LOWRANK, ...run, "--steps", "4", "--output", output];
  return runJob("mpirun", ["-n", String(ranks), ...command], { folder, env: launcher.env });
}

/** Throws unless the losses of a job equal the losses of one process within rounding. */
function compareLosses(job, alone, ranks) {
  const losses = listLosses(job);
  assert.equal(losses.length, alone.length);
  for (const [i, loss] of losses.entries())
    assert.ok(
      Math.abs(loss - alone[i]) <= 1e-6 * Math.max(1, alone[i]),
      `${ranks} ranks: ${loss}, not ${alone[i]}`,
    );
}

/** Throws unless a job has failed with the error, printed between once and `most` times, and with no other. */
function refused({ status, stderr, events }, error, most) {
  const printed = stderr.split("\n").filter((line) => line.includes("lowrank: "));
  assert.notEqual(status, 0);
  assert.ok(printed.length >= 1 && printed.length <= most, stderr);
  for (const line of printed) assert.match(line, error);
  assert.equal(events.filter(({ type }) => type === "step").length, 0);
}
