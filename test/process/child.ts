/**
 * The programs for the tests of whole processes. Arguments: a task and its own.
 *
 *   train DEVICE OUTPUT STEPS [resume|kill STEP]
 *                                         fine-tunes the tiny model, with a checkpoint at step 10; prints each step; kills
 *                                         itself at STEP
 *   timer DEVICE [default]                trains for some seconds with a 10 ms timer; prints its delays; the tiny model
 *                                         step by step, or the embedded default by a complete run
 *   exit DEVICE STATUS                    trains, and calls process.exit(STATUS) during a step
 *   uncaught DEVICE                       trains, and throws from a timer
 *   batches DEVICE WAY COUNT              passes COUNT batches of 8 MiB through a layer, in a WAY of `batches.ts`; prints
 *                                         the resident memory before, the highest, and some seconds later, in MiB
 *   panic DEVICE                          continues after a panic in a call, and ends normally after one in the device's
 *                                         thread
 */
import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { finetune, manualSeed, type Device } from "../../src/index.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { adamOf, recordStep, smallLlama } from "../small-llama.js";

const [task, device, ...rest] = process.argv.slice(2) as [string, Device, ...string[]];

async function train(output: string, steps: number, resume: boolean, kill: number): Promise<void> {
  const run = finetune({
    model: tinyModel(),
    data: tinyData(),
    device,
    output,
    resume,
    lora: { r: 4, loraDropout: 0.1 },
    optimizer: { lr: 1e-2 },
    batchSize: 2,
    gradientAccumulation: 2,
    steps,
    saveEvery: 10,
  });
  for await (const event of run) {
    if (event.type === "step") console.log(`step ${event.step}`);
    if (event.type === "step" && event.step === kill) process.kill(process.pid, "SIGKILL");
    if (event.type === "checkpoint") console.log(`checkpoint ${event.step}`);
  }
  await run.result;
}

/** Trains until `until` returns true, reading back each step's loss. */
async function forever(length: number, until: () => boolean): Promise<void> {
  const model = await smallLlama(device);
  const optimizer = adamOf(model);
  while (!until()) {
    recordStep(model, optimizer, length);
    const [parameter] = [...model.parameters()].filter((p) => p.requiresGrad);
    await parameter?.data();
  }
}

/** Runs training of the embedded default model: reading, tokenising, steps, checkpoints, an evaluation. */
async function wholeRun(ms: number): Promise<void> {
  const given = fileURLToPath(new URL("../../models/default/", import.meta.url));
  const folder = temporary();
  for (const name of ["tokenizer.json", "model.safetensors"])
    copyFileSync(join(given, name), join(folder, name));
  // The model was trained on shorter texts, but the cost of a step is the same.
  const config = JSON.parse(readFileSync(join(given, "config.json"), "utf8")) as object;
  writeFileSync(join(folder, "config.json"), JSON.stringify({ ...config, max_position_embeddings: 512 }));
  const run = finetune({
    model: folder,
    data: join(given, "moby-dick.txt"),
    device,
    output: join(temporary(), "out"),
    lora: { r: 16 },
    maxLength: 512,
    batchSize: 1,
    gradientAccumulation: 1,
    steps: 100_000,
    saveEvery: 4,
  });
  setTimeout(() => void run.stop(), ms);
  await run.result;
}

/**
 * Returns the milliseconds that this thread was runnable but waited for a processor; 0 where the system does not
 * report it.
 */
function waited(): number {
  const file = `/proc/self/task/${process.pid}/schedstat`;
  return existsSync(file) ? Number(readFileSync(file, "utf8").split(" ")[1]) / 1e6 : 0;
}

/**
 * Prints the delays of a 10 ms timer during `work`, from `skipped` ms on, without the time spent waiting for a
 * processor: the remaining delay is due to code of this thread, or to a lock.
 */
async function timer(work: () => Promise<void>, skipped: number): Promise<void> {
  const late: number[] = [];
  const began = performance.now();
  let [expected, before] = [began + 10, waited()];
  const interval = setInterval(() => {
    const [now, after] = [performance.now(), waited()];
    if (now - began > skipped) late.push(Math.max(0, now - expected - (after - before)));
    [expected, before] = [now + 10, after];
  }, 10);
  await work();
  clearInterval(interval);
  late.sort((a, b) => a - b);
  console.log(
    JSON.stringify({ ticks: late.length, p99: late[Math.floor(late.length * 0.99)], most: late.at(-1) }),
  );
  process.exit(0);
}

manualSeed(1);
if (task === "batches")
  await (await import("./batches.js")).batches(device, rest[0] as string, Number(rest[1]));
if (task === "panic") await (await import("./panics.js")).panics(device);
if (task === "train") {
  const kill = rest[2] === "kill" ? Number(rest[3]) : NaN;
  await train(rest[0] as string, Number(rest[1]), rest[2] === "resume", kill);
}
if (task === "timer" && rest[0] === "default") await timer(() => wholeRun(8000), 0);
else if (task === "timer") {
  const end = performance.now() + 6000;
  // The first moments load code and compile kernels.
  await timer(() => forever(256, () => performance.now() > end), 500);
}
if (task === "exit") {
  setTimeout(() => process.exit(Number(rest[0])), 600 + Math.random() * 100);
  await forever(512, () => false);
}
if (task === "uncaught") {
  setTimeout(() => {
    throw new Error("on purpose");
  }, 600);
  await forever(512, () => false);
}
