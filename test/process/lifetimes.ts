/** The memory of whole processes: in loops, after them, and after a panic. */
import test from "ava";

import { testDevices } from "../devices.js";
import { run } from "./start.js";

/** A release sets LOWRANK_BATCHES=500. A loop that frees nothing holds 800 MiB after 100. */
const BATCHES = process.env["LOWRANK_BATCHES"] ?? "100";

for (const device of testDevices()) {
  for (const way of ["scope", "bare", "generator", "trainer", "synchronous"])
    test.serial(`${BATCHES} batches of 8 MiB on ${device}, ${way}`, async (t) => {
      t.timeout(600_000);
      const { status, output, errors } = await run(["batches", device, way, BATCHES]);
      t.is(status, 0, errors);
      const { idle, most, end } = JSON.parse(output) as { idle: number; most: number; end: number };
      t.log(
        `${idle.toFixed(0)} MiB before, ${most.toFixed(0)} at most, ${end.toFixed(0)} some seconds after`,
      );
      t.true(most < 512, `${most} MiB`);
      t.true(end - idle < 64, `${end - idle} MiB are left`);
    });

  test.serial(`a panic on ${device} is an error`, async (t) => {
    t.timeout(120_000);
    const { status, output, errors } = await run(["panic", device]);
    t.is(status, 0, errors);
    const [call, sum, lost, still] = output.trim().split("\n");
    t.regex(call ?? "", /^ERR_INTERNAL: panicOnPurpose: on purpose \(.*session\/device\.rs:\d+:\d+\)$/);
    t.is(sum, "2,3", "the session continues");
    t.regex(lost ?? "", /^ERR_DEVICE_LOST: .*on purpose \(.*session\/device\.rs:\d+:\d+\)$/);
    t.is(still, lost, "the device says that it does not");
    t.is(errors, "");
  });
}
