/** `profile`: a trace of every operation, and a table of totals. */
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { finetune, memory, type ProfileEvent } from "../../src/index.js";
import { atRest } from "../at-rest.js";
import { runHere } from "../cli/lowrank.js";
import { testDevices } from "../devices.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { collect, quick } from "./quick.js";

const model = tinyModel();
const data = tinyData();

interface TraceEvent {
  ph: string;
  tid: number;
  ts: number;
  dur: number;
  name: string;
  cat: string;
  args: { kernel?: string; bytesRead?: number; bytesWritten?: number; flops?: number };
}

const HOST = 1;
const DEVICE = 2;

for (const device of testDevices()) {
  test.serial(
    `on ${device} every operation is in the trace, sorted by time, and the table adds up`,
    async (t) => {
      const path = join(temporary(), "trace.json");
      const { live } = await atRest(device);
      const options = quick({ model, data }, device, { profile: path, steps: 3 });
      const run = finetune({ ...options, gradientCheckpointing: true });
      const events = await collect(run);
      t.is(memory(device as "cpu").live, live);
      t.deepEqual(
        events.slice(-2).map(({ type }) => type),
        ["profile", "end"],
      );
      const profile = events.at(-2) as ProfileEvent;
      const { traceEvents } = JSON.parse(readFileSync(path, "utf8")) as { traceEvents: TraceEvent[] };
      const spans = traceEvents.filter(({ ph }) => ph === "X");
      const onDevice = spans.filter(({ tid }) => tid === DEVICE);
      const onHost = spans.filter(({ tid }) => tid === HOST);
      for (const track of [onDevice, onHost]) {
        // Times have nanosecond resolution.
        const late = track.findIndex(({ ts }, i) => {
          const before = track[i - 1];
          return before !== undefined && ts < before.ts + before.dur - 0.002;
        });
        t.is(late, -1, JSON.stringify(track.slice(late - 1, late + 1)));
      }
      for (const [name, pass] of [
        ["lora_linear", "forward"],
        ["lora_linear", "replay"],
        ["lora_linear", "backward"],
        ["attention", "forward"],
        ["attention", "backward"],
        ["linearCrossEntropy", "forward"],
        ["linearCrossEntropy", "backward"],
        ["adamw", "update"],
      ] as const) {
        for (const track of [onDevice, onHost])
          t.true(
            track.some((span) => span.name === name && span.cat === pass),
            `${name} ${pass}`,
          );
        const total = profile.operations.find((o) => o.operation === name && o.pass === pass);
        t.true(total !== undefined && total.deviceMs > 0 && total.bytesRead > 0 && total.calls > 0, name);
      }
      const product = onDevice.find(({ name, cat }) => name === "lora_linear" && cat === "forward")?.args;
      t.true((product?.flops ?? 0) > 0 && (product?.bytesRead ?? 0) > 0 && (product?.bytesWritten ?? 0) > 0);
      const told = profile.operations.reduce((sum, o) => sum + o.deviceMs, 0);
      const probed = onDevice.filter(({ name }) => name.startsWith("probe"));
      const spent =
        onDevice.reduce((sum, { dur }) => sum + dur, 0) - probed.reduce((sum, { dur }) => sum + dur, 0);
      t.true(
        Math.abs(told - spent / 1000) < 0.01 * told,
        `${told} ms reported, ${spent / 1000} ms in the trace`,
      );
      t.true(told < profile.seconds * 1000, `${told} ms of ${profile.seconds} s`);
      t.true(profile.flopsPerSecond > 1e8 && profile.bytesPerSecond > 1e8);
      t.is(profile.leftOut, 0);
    },
  );
}

test.serial("the command prints the table on stderr, and none of it among the events", async (t) => {
  const folder = temporary();
  const trace = join(folder, "trace.json");
  const run = ["finetune", "--model", model, "--data", data, "--output", join(folder, "out")];
  const { status, stdout, stderr } = await runHere(
    ...run,
    ...["--steps", "2", "--device", "cpu", "--json", "--profile", trace],
  );
  t.is(status, 0, stderr);
  t.deepEqual(
    stdout
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { type: string }).type)
      .filter((type) => type !== "progress"),
    ["start", "rows", "step", "step", "checkpoint", "end"],
  );
  t.regex(stderr, /^operation +pass +calls +ms +share +rate +of roofline\n/m);
  t.regex(stderr, /^lora_linear +backward +\d+ +[\d.]+ +[\d.]+% +[\d.]+ G(FLOP|B)\/s +\d+%$/m);
  t.regex(stderr, /the trace is in .*trace\.json/);
  t.true(existsSync(trace));
});

for (const [what, path] of [
  ["a missing folder", (folder: string) => join(folder, "missing", "trace.json")],
  ["a folder", (folder: string) => folder],
] as const) {
  test.serial(`a profile into ${what} is refused before any work`, async (t) => {
    const folder = temporary();
    const output = join(folder, "out");
    const options = quick({ model: join(folder, "no model"), data }, "cpu", {
      profile: path(folder),
      output,
    });
    const run = finetune(options);
    const error = await t.throwsAsync(run.result);
    t.is((error as { code?: string }).code, "ERR_WRITE");
    t.regex(error?.message ?? "", /cannot be written/);
    t.deepEqual(readdirSync(folder), []);
  });
}

test.serial("a failed run leaves no trace", async (t) => {
  const folder = temporary();
  const path = join(folder, "trace.json");
  mkdirSync(folder, { recursive: true });
  const run = finetune(quick({ model: join(folder, "no model"), data }, "cpu", { profile: path }));
  await t.throwsAsync(run.result);
  t.deepEqual(readdirSync(folder), []);
});
