/**
 * Any call with any arguments causes no abort and no panic, and every refusal is a `LowrankError` worded by this
 * package. `LOWRANK_CALLS=10000 LOWRANK_SEED=7 npx ava test/fuzz` makes more calls, with other seeds.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath, pathToFileURL } from "node:url";

import test from "ava";

import { temporary } from "../hashed.js";

const DRIVER = fileURLToPath(new URL("calls.ts", import.meta.url));
const LOADER = pathToFileURL(
  fileURLToPath(new URL("../../node_modules/tsx/dist/loader.mjs", import.meta.url)),
).href;
const CALLS = Number(process.env["LOWRANK_CALLS"] ?? 4000);
const SEED = Number(process.env["LOWRANK_SEED"] ?? 1);

interface Outcome {
  calls: number;
  refused: number;
  wrong: Record<string, { count: number; message: string }>;
}

for (const seed of [SEED, SEED + 1]) {
  test(`${CALLS} random calls of the public API, seed ${seed}`, (t) => {
    // The folder for files written by valid calls.
    const run = spawnSync(process.execPath, [`--import=${LOADER}`, DRIVER, String(seed), String(CALLS)], {
      cwd: temporary(),
      encoding: "utf8",
      maxBuffer: 1 << 26,
    });
    t.is(run.status, 0, run.stderr.slice(-2000));
    const { calls, refused, wrong } = JSON.parse(run.stdout.trim().split("\n").at(-1) as string) as Outcome;
    t.is(calls, CALLS);
    t.true(refused > CALLS / 4, `${refused} refused`);
    t.deepEqual(wrong, {});
  });
}
