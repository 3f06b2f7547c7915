/**
 * A host that watches a run and reports the longest turn of its event loop. Arguments: the kind of host of the run,
 * and the milliseconds for which each event blocks on purpose. Prints `{ longest, turns, events }`.
 */
import { readFileSync } from "node:fs";
import { setTimeout as after } from "node:timers/promises";
import { join } from "node:path";
import { performance } from "node:perf_hooks";

import { connect } from "../../src/electron/index.js";
import { locateDefaultData, locateDefaultModel } from "../../src/models/default.js";
import { temporary } from "../hashed.js";
import { start, type Kind } from "./hosts.js";

const [kind, blocked] = process.argv.slice(2) as [Kind, string];

/**
 * Returns the milliseconds that this thread has worked. Linux reports its running time, without the time that other
 * processes used the core; elsewhere it is the time that the loop did not spend waiting.
 */
function worked(): number {
  if (process.platform === "linux")
    return Number(readFileSync("/proc/self/schedstat", "utf8").split(" ")[0]) / 1e6;
  return performance.now() - performance.nodeTiming.idleTime;
}

/** Measures the longest turn. A client uses nothing of Node, so only work can block it. */
class Turns {
  longest = 0;
  count = 0;
  #at = worked();
  // A timer that is due is called in every turn, so that two long turns never count as one.
  readonly #timer = setInterval(() => this.#look(), 1);

  end(): void {
    this.#look();
    clearInterval(this.#timer);
  }

  #look(): void {
    const at = worked();
    this.longest = Math.max(this.longest, at - this.#at);
    this.count += 1;
    this.#at = at;
  }
}

const host = start(kind);
const client = connect(host.port);
await client.ready;
// The start of a process or thread is not the client's work.
await after(200);
const turns = new Turns();
const run = client.finetune({
  model: locateDefaultModel(),
  data: locateDefaultData(),
  device: "cpu",
  output: join(temporary(), "out"),
  lora: { r: 4 },
  maxLength: 64,
  batchSize: 1,
  gradientAccumulation: 1,
  steps: 150,
  saveEvery: 25,
});
let events = 0;
for await (const event of run) {
  events += 1;
  const until = worked() + Number(blocked);
  while (event.type === "step" && event.step % 10 === 0 && worked() < until);
}
await run.result;
turns.end();
console.log(JSON.stringify({ longest: turns.longest, turns: turns.count, events }));
process.exit(0);
