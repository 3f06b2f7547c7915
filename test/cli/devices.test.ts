/** `lowrank finetune` on several devices, among them two GPUs. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import type { StartEvent, TrainEvent } from "../../src/train/events.js";
import { testDevices } from "../devices.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { lowrank, ONE_LINE, runHere } from "./lowrank.js";

const model = tinyModel();
const data = tinyData();

/** Mesa's software GPU. A loader that gets two descriptions of its library lists two devices. */
const LAVAPIPE = `/usr/share/vulkan/icd.d/lvp_icd.${process.arch === "arm64" ? "aarch64" : "x86_64"}.json`;

interface Run {
  losses: number[];
  start: StartEvent;
  adapter: Buffer;
}

async function run(env: Record<string, string>, ...more: string[]): Promise<Run> {
  const output = join(temporary(), "out");
  const own = ["--model", model, "--data", data, "--rank", "4", "--batch-size", "2", "--grad-accum", "3"];
  const { status, stdout, stderr } = await lowrank(
    ["finetune", "--steps", "6", "--lr", "0.01", "--output", output, "--json", ...own, ...more],
    { env },
  );
  if (status !== 0) throw new Error(stderr);
  const events = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as TrainEvent);
  return {
    losses: events.flatMap((event) => (event.type === "step" ? [event.loss] : [])),
    start: events.find((event) => event.type === "start") as StartEvent,
    adapter: readFileSync(join(output, "adapter_model.safetensors")),
  };
}

if (testDevices().length > 1 && existsSync(LAVAPIPE)) {
  test.serial("two GPUs give the losses of one, and the same bits twice", async (t) => {
    const second = join(temporary(), "second.json");
    writeFileSync(second, readFileSync(LAVAPIPE));
    const env = { VK_DRIVER_FILES: `${LAVAPIPE}:${second}` };
    const alone = await run(env, "--device", "gpu:0");
    const [once, twice] = [
      await run(env, "--device", "gpu:0,gpu:1", "--device-shares", "1,1"),
      await run(env, "--device", "gpu:0, gpu:1"),
    ];
    // Two equal devices are measured as equal, at least nearly.
    const measured = twice.start.devices?.map(({ rows }) => rows) ?? [];
    t.true(
      measured.every((rows) => rows >= 2),
      measured.join(),
    );
    t.deepEqual(
      once.start.devices?.map(({ device, rows }) => [device, rows]),
      [
        ["gpu:0", 3],
        ["gpu:1", 3],
      ],
    );
    const again = await run(env, "--device", "gpu:0,gpu:1", "--device-shares", "1,1");
    t.true(once.adapter.equals(again.adapter));
    t.deepEqual(once.losses, again.losses);
    const three = await run(env, "--device", "gpu:1,gpu:0,cpu", "--device-shares", "2,2,2");
    for (const { losses } of [once, twice, three])
      for (const [step, loss] of losses.entries())
        t.true(
          Math.abs(loss - (alone.losses[step] ?? NaN)) <= 1e-6 * loss,
          `${step}: ${loss} ${alone.losses[step]}`,
        );
    t.is(three.losses.length, 6);
  });
}

test.serial("devices and shares that do not go together are one line that names the flags", async (t) => {
  const refused: [string[], string][] = [
    [["--device", "cpu,tpu"], `Unknown device "tpu"`],
    [["--device", "cpu,auto"], "--device names auto among several devices; name each as cpu, gpu or gpu:N"],
    [["--device", "cpu,cpu"], "--device names cpu twice; name each device once"],
    [
      ["--device", "cpu", "--device-shares", "1,1"],
      "--device-shares has 2 shares, and --device names one device",
    ],
    [
      ["--device", "cpu,gpu", "--device-shares", "1,0"],
      "It must be whole numbers of at least 1, such as 3,1.",
    ],
  ];
  for (const [flags, message] of refused) {
    const { status, stdout, stderr } = await runHere("finetune", "--model", model, "--data", data, ...flags);
    t.not(status, 0);
    t.is(stdout, "");
    t.regex(stderr, ONE_LINE);
    t.true(stderr.includes(message), stderr);
  }
});
