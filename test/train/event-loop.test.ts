/** A run in the main thread leaves the event loop responsive: each turn of the loop is short. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { finetune } from "../../src/index.js";
import { locateDefaultData, locateDefaultModel } from "../../src/models/default.js";
import { temporary } from "../hashed.js";

/** Returns the main thread's processor time in milliseconds, which other processes do not affect. */
const worked = (): number => Number(readFileSync("/proc/self/schedstat", "utf8").split(" ")[0]) / 1e6;

// The longest turn takes 10 ms on two cores of an EPYC (Zen 4): recording one micro-batch. A step has eight of
// them.
const MOST_MS = 30;

test("no turn of the event loop takes long while a run trains", async (t) => {
  if (process.platform !== "linux") return t.pass("only Linux reports the time of a thread");
  const run = finetune({
    model: locateDefaultModel(),
    data: locateDefaultData(),
    device: "cpu",
    output: join(temporary(), "out"),
    steps: 6,
    saveEvery: "never",
  });
  let longest = 0;
  let turns = 0;
  let at = worked();
  // A timer that is due is called in every turn.
  let timer: ReturnType<typeof setInterval> | undefined;
  for await (const event of run) {
    if (event.type !== "step" || timer !== undefined) continue;
    at = worked();
    timer = setInterval(() => {
      const now = worked();
      longest = Math.max(longest, now - at);
      at = now;
      turns++;
    }, 1);
  }
  clearInterval(timer);
  t.true(turns > 20, `${turns} turns`);
  t.true(longest < MOST_MS, `${longest} ms of ${turns} turns`);
});
