/** Ends of a run of the command: by a signal, a closed reader, a full disk, a mistake. */
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import type { TrainEvent } from "../../src/index.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { CLI } from "../programs.js";
import { lowrank, ONE_LINE, runHere, type Ended, withDefaults } from "./lowrank.js";

const [model, data] = [tinyModel(), tinyData()];

function finetune(output: string, ...more: string[]): string[] {
  const common = { model, device: "cpu", rank: "4", lr: "0.01", "batch-size": "2", "grad-accum": "2", data };
  return withDefaults(["finetune", "--output", output, "--json", ...more], common);
}

const adapter = (folder: string): Buffer => readFileSync(join(folder, "adapter_model.safetensors"));
/** Returns the types of the events without progress, which appears only if reading takes long. */
const types = ({ stdout }: Ended): string[] =>
  stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => (JSON.parse(line) as TrainEvent).type)
    .filter((type) => type !== "progress");

for (const [signal, status] of [
  ["SIGTERM", 143],
  ["SIGHUP", 129],
] as const) {
  test.serial(`${signal} ends a run like Ctrl-C, with its own exit status`, async (t) => {
    const [whole, cut] = [join(temporary(), "out"), join(temporary(), "out")];
    t.is((await lowrank(finetune(whole, "--steps", "12"))).status, 0);
    const stopped = await lowrank(finetune(cut, "--steps", "12"), {
      signal: [signal, "step"],
    });
    t.is(stopped.status, status, stopped.stderr);
    const [, command = ""] = /resume with: lowrank (.*)\n/.exec(stopped.stderr) ?? [];
    const resumed = await lowrank(command.split(" "));
    t.is(resumed.status, 0, resumed.stderr);
    t.true(adapter(whole).equals(adapter(cut)));
  });
}

test.serial(
  "a signal during preparation of the data ends the run at once, and nothing is saved",
  async (t) => {
    const output = join(temporary(), "out");
    // Tokenising this many rows takes seconds.
    const many = tinyData(60_000);
    const child = spawn(process.execPath, [CLI, ...finetune(output, "--data", many, "--steps", "2")], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (text: Buffer) => (stdout += text.toString()));
    child.stderr.on("data", (text: Buffer) => (stderr += text.toString()));
    const ended = new Promise<number | null>((resolve) => child.on("close", (status) => resolve(status)));
    // The lock exists as soon as the run does.
    while (!existsSync(join(output, "run.lock"))) await new Promise((resolve) => setTimeout(resolve, 5));
    child.kill("SIGINT");
    t.is(await ended, 130, stderr);
    t.regex(stderr, /stopped before the first step; nothing was saved/);
    // Progress of reading may have been reported before.
    const events = stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as TrainEvent);
    const told = events.filter(({ type }) => type !== "progress");
    t.is(told.length, 1);
    t.like(told[0], { type: "end", adapter: "", steps: 0, stopped: true });
    t.false(existsSync(output));
  },
);

test.serial("a closed reader ends the output, not the training", async (t) => {
  const output = join(temporary(), "out");
  // More steps than can finish before the reader is closed.
  const ended = await lowrank(finetune(output, "--steps", "300"), {
    watch: (_, child) => void child.stdout?.destroy(),
  });
  t.is(ended.status, 0);
  t.regex(ended.stderr, /^lowrank: stdout cannot be written any more \(EPIPE\); the run continues/);
  t.true(ended.stderr.includes(`lowrank: done at step 300: adapter ${output}\n`));
  t.true(existsSync(join(output, "adapter_model.safetensors")));
});

test.serial("a reader that doesn't read doesn't block the training", async (t) => {
  const output = join(temporary(), "out");
  // More events than a pipe holds.
  const argv = finetune(output, "--steps", "600", "--grad-accum", "1", "--batch-size", "1");
  const child = spawn(process.execPath, [CLI, ...argv], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise<number | null>((resolve) => child.on("close", (status) => resolve(status)));
  const began = performance.now();
  while (!existsSync(join(output, "adapter_config.json")) && performance.now() - began < 100_000)
    await new Promise((resolve) => setTimeout(resolve, 20));
  t.true(existsSync(join(output, "adapter_config.json")));
  child.stdout.resume();
  t.is(await ended, 0);
});

if (process.platform === "linux") {
  test.serial("a full stdout ends the output, and the exit status reports it", async (t) => {
    const output = join(temporary(), "out");
    const ended = await lowrank(finetune(output, "--steps", "6"), { shell: "exec >/dev/full" });
    t.is(ended.status, 1);
    t.regex(ended.stderr, /stdout cannot be written any more \(ENOSPC\)/);
    t.true(
      ended.stderr.endsWith(`lowrank: done at step 6: adapter ${output}; stdout was cut off (ENOSPC)\n`),
    );
    t.true(existsSync(join(output, "adapter_model.safetensors")));
  });

  test.serial(
    "a disk that fills up keeps the saved checkpoints, and the run resumes from them",
    async (t) => {
      const [whole, cut] = [join(temporary(), "out"), join(temporary(), "out")];
      const flags = ["--steps", "8", "--save-every", "2"];
      t.is((await lowrank(finetune(whole, ...flags))).status, 0);
      const stopped = await lowrank(finetune(cut, ...flags), {
        signal: ["SIGINT", "checkpoint"],
      });
      t.is(stopped.status, 130);
      const before = readdirSync(cut);
      let offered: string | undefined;
      // Files of one block at most: not even the event record can be written.
      for (const blocks of [1, 8, 30]) {
        const full = await lowrank(["finetune", "--resume", cut], { shell: `ulimit -f ${blocks}` });
        t.is(full.status, 1, full.stderr);
        // The event record may not fit either; this may cause an earlier warning.
        const told = full.stderr.replace(
          /^lowrank: warning: [^\n]*events\.jsonl: cannot be written [^\n]*\n/,
          "",
        );
        t.regex(told, ONE_LINE);
        t.regex(told, /cannot be written.*; free some space, or choose another folder/);
        t.deepEqual(readdirSync(cut), before);
        offered ??= /checkpoint-\d+ is kept; continue from it with (--resume \S+)\n$/.exec(told)?.[1];
      }
      t.is(offered, `--resume ${cut}`);
      const resumed = await lowrank(["finetune", ...(offered as string).split(" ")]);
      t.is(resumed.status, 0, resumed.stderr);
      t.true(adapter(whole).equals(adapter(cut)));
    },
  );
}

test.serial("messages about the output folder recommend commands that work", async (t) => {
  const output = join(temporary(), "out");
  t.is((await runHere(...finetune(output, "--steps", "4", "--save-every", "2"))).status, 0);
  const again = await runHere(...finetune(output, "--steps", "4"));
  t.is(again.status, 1);
  t.regex(again.stderr, /already contains a run; continue it with --resume, replace it with --yes, or/);
  const onward = await runHere("finetune", "--output", output, "--resume", "--json");
  t.is(onward.status, 0, onward.stderr);
  const other = await runHere(...finetune(output, "--steps", "5", "--resume", "--rank", "2"));
  t.is(other.status, 1);
  t.regex(
    other.stderr,
    /--rank was 4, and is 2 now: .*; leave them out to resume unchanged, or start a new run/,
  );
  const longer = await runHere("finetune", "--resume", output, "--steps", "6", "--json");
  t.is(longer.status, 0, longer.stderr);
  t.deepEqual(types(longer).slice(0, 3), ["warning", "warning", "start"]);
  t.is((await runHere(...finetune(output, "--steps", "3", "--yes"))).status, 0);
  // Without checkpoints --resume is not recommended, since it would not work.
  const none = join(temporary(), "out");
  t.is((await runHere(...finetune(none, "--steps", "2", "--save-every", "never"))).status, 0);
  t.regex((await runHere(...finetune(none))).stderr, /already contains a run; replace it with --yes, or/);
  const without = await runHere("finetune", "--resume", none);
  t.regex(
    without.stderr,
    /there is no checkpoint to resume from; start the run again in the same folder with --yes$/m,
  );
  t.is((await runHere(...finetune(none, "--steps", "2", "--yes"))).status, 0);
});
