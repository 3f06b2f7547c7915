/** The event loop that watches a run is never blocked. The documentation promises this, so the test measures time. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

import test from "ava";

/** Milliseconds of a frame at 60 frames per second. */
const FRAME = 16;

interface Watched {
  longest: number;
  turns: number;
  events: number;
}

function watch(kind: string, blocked: number): Watched {
  const program = fileURLToPath(new URL("watching.ts", import.meta.url));
  const args = ["--import=tsx", program, kind, String(blocked)];
  const env = { ...process.env, NODE_OPTIONS: "" };
  return JSON.parse(execFileSync(process.execPath, args, { encoding: "utf8", env })) as Watched;
}

for (const kind of ["worker", "fork"]) {
  test.serial(`no turn of the loop that watches a run in a ${kind} takes ${FRAME} ms`, (t) => {
    t.timeout(120_000);
    const { longest, turns, events } = watch(kind, 0);
    t.log(`${longest.toFixed(1)} ms at most, in ${turns} turns`);
    t.true(events > 150 && turns > 500);
    t.true(longest <= FRAME);
  });
}

test.serial("a reader that blocks is detected", (t) => {
  const { longest } = watch("fork", FRAME + 4);
  t.true(longest > FRAME, `${longest} ms`);
});
