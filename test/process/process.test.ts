/** Whole processes: killed and resumed, timers during training, ends during a step. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Worker } from "node:worker_threads";

import test from "ava";

import { testDevices } from "../devices.js";
import { temporary } from "../hashed.js";
import { ENV, run } from "./start.js";
// In this worker, sequentially, since a loop of batches would delay the timer of another test.
import "./lifetimes.js";

const WORKER = new URL("worker.mjs", import.meta.url);
/** A release sets LOWRANK_ENDS=50, which repeats the ends. */
const ENDS = Number(process.env["LOWRANK_ENDS"] ?? 3);

function adapter(folder: string): Buffer {
  return readFileSync(join(folder, "adapter_model.safetensors"));
}

for (const device of testDevices()) {
  test.serial(`killed after a checkpoint and resumed, on ${device}: a bit-identical adapter`, async (t) => {
    t.timeout(300_000);
    const [whole, cut] = [join(temporary(), "whole"), join(temporary(), "cut")];
    const straight = await run(["train", device, whole, "20"]);
    t.is(straight.status, 0, straight.errors);
    const killed = await run(["train", device, cut, "20", "kill", "13"]);
    t.is(killed.signal, "SIGKILL", killed.errors);
    t.true(existsSync(join(cut, "checkpoint-10")), readdirSync(cut).join());
    t.false(existsSync(join(cut, "adapter_model.safetensors")));
    const resumed = await run(["train", device, cut, "20", "resume"]);
    t.is(resumed.status, 0, resumed.errors);
    t.false(resumed.output.includes("step 9\n"));
    t.true(adapter(cut).equals(adapter(whole)));
  });

  test.serial(`one thread and two, twice, on ${device}: the same bits`, async (t) => {
    t.timeout(300_000);
    const files: Buffer[] = [];
    for (const threads of ["1", "2", "2"]) {
      const folder = join(temporary(), "out");
      const { status, errors } = await run(["train", device, folder, "6"], { LOWRANK_THREADS: threads });
      t.is(status, 0, errors);
      files.push(adapter(folder));
    }
    t.true(files.every((file) => file.equals(files[0] as Buffer)));
  });

  for (const [model, which] of [
    ["a tiny model", []],
    ["the embedded model on 512 tokens", ["default"]],
  ] as const)
    test.serial(`a timer during training of ${model} on ${device} is on time`, async (t) => {
      t.timeout(240_000);
      // Waiting for a processor is not counted, but other processes cause other delays, too. Delays that this
      // process causes itself occur in every attempt.
      for (let attempt = 1; ; attempt++) {
        const { output, errors, status } = await run(["timer", device, ...which]);
        t.is(status, 0, errors);
        const { ticks, p99, most } = JSON.parse(output) as { ticks: number; p99: number; most: number };
        const told = `${ticks} ticks, 99% within ${p99.toFixed(1)} ms, at most ${most.toFixed(1)} ms late`;
        t.log(told);
        const onTime = ticks > 100 && p99 < 50 && most < 250;
        if (onTime || attempt === 3) return t.true(onTime, told);
      }
    });

  test.serial(`process.exit during a step on ${device} ends with its status, ${ENDS} times`, async (t) => {
    t.timeout(600_000);
    const times: number[] = [];
    for (let i = 0; i < ENDS; i++) {
      const { status, signal, ms, errors } = await run(["exit", device, "7"]);
      t.is(status, 7, `${signal} ${errors}`);
      times.push(ms);
    }
    t.log(`longest ${Math.max(...times).toFixed(0)} ms, start included`);
  });

  test.serial(`an uncaught error during a step on ${device} ends the process`, async (t) => {
    t.timeout(120_000);
    const { status, errors } = await run(["uncaught", device]);
    t.is(status, 1);
    t.true(errors.includes("on purpose"));
  });

  test.serial(`two worker threads load the engine at once and train on ${device}`, async (t) => {
    t.timeout(120_000);
    const statuses = [1, 2].map(
      () =>
        new Promise<number>((resolve, reject) => {
          const argv = ["train", device, join(temporary(), "out"), "3"];
          const worker = new Worker(WORKER, { argv, env: ENV, stdout: true });
          worker.on("error", reject).on("exit", resolve);
        }),
    );
    t.deepEqual(await Promise.all(statuses), [0, 0]);
  });

  test.serial(`worker.terminate during a step on ${device}, ${ENDS} times`, async (t) => {
    t.timeout(600_000);
    let longest = 0;
    for (let i = 0; i < ENDS; i++) {
      const worker = new Worker(WORKER, {
        argv: ["train", device, join(temporary(), "out"), "10000"],
        env: ENV,
        stdout: true,
      });
      worker.on("error", (error) => t.fail(String(error)));
      // The worker is training once it has printed its first step.
      await new Promise((resolve) => worker.stdout.once("data", resolve));
      const began = performance.now();
      await worker.terminate();
      longest = Math.max(longest, performance.now() - began);
    }
    t.log(`longest ${longest.toFixed(0)} ms`);
    // A busy machine may take seconds; a process that waits for a lost message takes longer than the test may.
    t.true(longest < 20_000);
  });
}
