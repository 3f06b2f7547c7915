/**
 * What the tests of whole processes run. Arguments: a task and its own.
 *
 *   train DEVICE OUTPUT STEPS [resume]    fine-tunes the tiny model, a checkpoint at step 10; prints each step
 *   timer DEVICE                          trains for some seconds beside a 10 ms timer; prints how late it was
 *   exit DEVICE STATUS                    trains, and calls process.exit(STATUS) in mid-step
 *   uncaught DEVICE                       trains, and throws out of a timer
 */
import { finetune, manualSeed, type Device } from "../../src/index.js";
import { tinyData, tinyModel } from "../hashed.js";
import { adamOf, recordStep, smallLlama } from "../small-llama.js";

const [task, device, ...rest] = process.argv.slice(2) as [string, Device, ...string[]];

async function train(output: string, steps: number, resume: boolean): Promise<void> {
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
    if (event.type === "checkpoint") console.log(`checkpoint ${event.step}`);
  }
  await run.result;
}

/** Trains without end, one step read at a time. */
async function forever(length: number, until: () => boolean): Promise<void> {
  const model = await smallLlama(device);
  const optimizer = adamOf(model);
  while (!until()) {
    recordStep(model, optimizer, length);
    const [parameter] = [...model.parameters()].filter((p) => p.requiresGrad);
    await parameter?.data();
  }
}

async function timer(): Promise<void> {
  const late: number[] = [];
  let expected = performance.now() + 10;
  const interval = setInterval(() => {
    const now = performance.now();
    late.push(Math.max(0, now - expected));
    expected = now + 10;
  }, 10);
  const end = performance.now() + 6000;
  await forever(256, () => performance.now() > end);
  clearInterval(interval);
  // The first second compiles kernels and loads code.
  late.splice(0, 50);
  late.sort((a, b) => a - b);
  console.log(
    JSON.stringify({ ticks: late.length, p99: late[Math.floor(late.length * 0.99)], most: late.at(-1) }),
  );
  process.exit(0);
}

manualSeed(1);
if (task === "train") await train(rest[0] as string, Number(rest[1]), rest[2] === "resume");
if (task === "timer") await timer();
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
