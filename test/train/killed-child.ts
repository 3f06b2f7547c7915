/**
 * A run with default options, in a process that kills itself after a step has been reported: `killed-child.ts MODEL
 * DATA OUTPUT STEP`. Each reading of the clock is a minute later.
 */
import { finetune, type FinetuneOptions } from "../../src/index.js";
import { CLOCK } from "../../src/train/finetune/finetuning.js";

const [model, data, output, step] = process.argv.slice(2) as [string, string, string, string];
let at = 0;
const options: FinetuneOptions & { [CLOCK]: () => number } = {
  model,
  data,
  output,
  device: "cpu",
  steps: 400,
  schedule: "constant",
  gradientAccumulation: 1,
  lora: { r: 2, loraDropout: 0.1 },
  [CLOCK]: () => (at += 60_000),
};
for await (const event of finetune(options))
  if (event.type === "step" && event.step >= Number(step)) process.kill(process.pid, "SIGKILL");
