/** A serving process or worker that is asked to quit during a step: no crash, no hang, and a complete checkpoint. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import test from "ava";

import { connect } from "../../src/electron/index.js";
import { finetune } from "../../src/index.js";
import { locateDefaultData, locateDefaultModel } from "../../src/models/default.js";
import { temporary } from "../hashed.js";
import { endAll, start, type Host, type Kind } from "./hosts.js";

test.after.always(endAll);

/** A release sets LOWRANK_ENDS=50, which repeats each test. */
const ENDS = Number(process.env["LOWRANK_ENDS"] ?? 1);

/** Steps of the embedded model take a tenth of a second, so that any moment is during a step. */
const run = {
  model: locateDefaultModel(),
  data: locateDefaultData(),
  device: "cpu",
  maxLength: 256,
  batchSize: 4,
  gradientAccumulation: 1,
  lora: { r: 4 },
  steps: 100_000,
  saveEvery: 2,
};

interface Way {
  kind: Kind;
  quit: (host: Host) => void;
  /** How the process ended. */
  status: number | null;
  signal?: NodeJS.Signals;
}

const WAYS: Record<string, Way> = {
  "a forked process by SIGTERM": {
    kind: "fork",
    quit: (host) => host.kill("SIGTERM"),
    status: null,
    signal: "SIGTERM",
  },
  "a forked process by process.exit()": {
    kind: "fork",
    quit: (host) => host.tell({ task: "exit" }),
    status: 7,
  },
  "a forked process whose parent disconnects": {
    kind: "fork",
    quit: (host) => (host.port as ChildProcess).disconnect(),
    status: 0,
  },
  "a utility process by process.exit()": {
    kind: "utility",
    quit: (host) => host.tell({ task: "exit" }),
    status: 7,
  },
  "a worker by process.exit()": { kind: "worker", quit: (host) => host.tell({ task: "exit" }), status: 7 },
  "a worker by terminate()": { kind: "worker", quit: (host) => host.kill(), status: 1 },
};

/** Resumes for one step from the checkpoint in the folder; returns the step at which it began. */
async function resumedFrom(output: string, least: number): Promise<number> {
  const again = finetune({ output, resume: true, steps: least + 50, device: "cpu" });
  let from = -1;
  for await (const event of again) {
    if (event.type === "start") from = event.resumedFrom;
    if (event.type === "step") void again.stop();
  }
  await again.result;
  return from;
}

for (const [name, { kind, quit, status, signal }] of Object.entries(WAYS))
  test.serial(`${name}, ${ENDS} times`, async (t) => {
    t.timeout(60_000);
    let longest = 0;
    for (let i = 0; i < ENDS; i++) {
      const output = join(temporary(), "out");
      const host = start(kind);
      const served = connect(host.port).finetune({ ...run, output });
      let saved = 0;
      let quitting = 0;
      const failure = await t.throwsAsync(
        async () => {
          for await (const event of served) {
            if (event.type !== "checkpoint" || quitting !== 0) continue;
            saved = event.step;
            await new Promise((resolve) => setTimeout(resolve, Math.random() * 100));
            quitting = performance.now();
            quit(host);
          }
        },
        { code: "ERR_DISCONNECTED" },
      );
      const ended = await host.ended;
      longest = Math.max(longest, performance.now() - quitting);
      t.is(ended.status, status, ended.errors);
      t.is(ended.signal, signal ?? null);
      t.is(ended.errors, "");
      t.regex(
        failure?.message ?? "",
        /resume: true, which continues from its last checkpoint, .*checkpoint-\d+/,
      );
      t.true((await resumedFrom(output, saved)) >= saved);
      rmSync(output, { recursive: true });
    }
    t.log(`longest ${longest.toFixed(0)} ms`);
    // A busy machine may take seconds; a process that waits for a lost message takes longer than the test may.
    t.true(longest < 20_000, `${longest} ms`);
  });

test.serial("a forked process whose parent was killed saves a checkpoint and ends", async (t) => {
  t.timeout(60_000);
  const output = join(temporary(), "out");
  const child = spawn(
    process.execPath,
    [
      `--import=${pathToFileURL(fileURLToPath(import.meta.resolve("tsx"))).href}`,
      fileURLToPath(new URL("parent.ts", import.meta.url)),
      JSON.stringify({ ...run, saveEvery: 100_000, output }),
    ],
    { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, NODE_OPTIONS: "" } },
  );
  const [said] = (await once(child.stdout, "data")) as [Buffer];
  child.kill("SIGKILL");
  const serving = Number(String(said));
  const alive = (): boolean => {
    try {
      return process.kill(serving, 0);
    } catch {
      return false;
    }
  };
  const began = performance.now();
  while (alive() && performance.now() - began < 20_000)
    await new Promise((resolve) => setTimeout(resolve, 20));
  t.false(alive());
  t.true((await resumedFrom(output, 2)) >= 2);
});
