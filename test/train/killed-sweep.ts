/** A sweep in a process that kills itself once a trial has ended a step: `killed-sweep.ts OPTIONS TRIAL STEP`. */
import { sweep, type SweepOptions } from "../../src/index.js";

const [options, trial, step] = process.argv.slice(2) as [string, string, string];
for await (const event of sweep(JSON.parse(options) as SweepOptions))
  if (event.type === "step" && event.trial === trial && event.step >= Number(step))
    process.kill(process.pid, "SIGKILL");
