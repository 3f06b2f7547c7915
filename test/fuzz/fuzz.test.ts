/** Whatever is called with whatever: no abort, no panic, and no error that the binding's words are left in. */
import { spawnSync } from "node:child_process";
import { fileURLToPath, pathToFileURL } from "node:url";

import test from "ava";

import { temporary } from "../hashed.js";

const CALLS = fileURLToPath(new URL("calls.ts", import.meta.url));
const LOADER = pathToFileURL(
  fileURLToPath(new URL("../../node_modules/tsx/dist/loader.mjs", import.meta.url)),
).href;

interface Outcome {
  calls: number;
  refused: number;
  wrong: Record<string, { count: number; message: string }>;
}

for (const seed of [1, 2]) {
  test(`2,000 random calls of the public API, seed ${seed}`, (t) => {
    // What is written by a call that fits by chance goes there.
    const run = spawnSync(process.execPath, [`--import=${LOADER}`, CALLS, String(seed), "2000"], {
      cwd: temporary(),
      encoding: "utf8",
      maxBuffer: 1 << 26,
    });
    t.is(run.status, 0, run.stderr.slice(-2000));
    const { calls, refused, wrong } = JSON.parse(run.stdout.trim().split("\n").at(-1) as string) as Outcome;
    t.is(calls, 2000);
    t.true(refused > 500, `${refused} refused`);
    // The engine's refusals all have a code: what JavaScript itself throws is of its own classes.
    const untranslated = Object.entries(wrong).filter(([name]) =>
      /: Error$|: LowrankError$|^uncaught/.test(name),
    );
    t.deepEqual(untranslated, []);
  });
}
