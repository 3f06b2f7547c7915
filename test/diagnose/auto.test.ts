/** The device auto with an unknown GPU: in separate processes, where the software GPU is treated as hardware. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { lowrank, type Ended } from "../cli/lowrank.js";
import { testDevices } from "../devices.js";
import { temporary } from "../hashed.js";
import { brokenEnvironment, type Broken } from "./child.js";

interface Started {
  ended: Ended;
  /** The events that the run printed. */
  events: { type: string; device?: string; why?: string; steps?: number }[];
  /** The number of processes that tested a GPU. */
  tests: number;
}

/** Runs two steps on the device that auto chooses, with a cache folder. */
async function finetuned(cache: string, broken: Broken, ...more: string[]): Promise<Started> {
  const count = join(temporary(), "count");
  const data = join(temporary(), "rows.jsonl");
  writeFileSync(data, '{"text":"one two three four"}\n{"text":"five six seven"}\n');
  const env = {
    ...brokenEnvironment(broken),
    BROKEN_HARDWARE: "1",
    BROKEN_COUNT: count,
    XDG_CACHE_HOME: cache,
    ...Object.fromEntries(more.filter((one) => one.includes("=")).map((one) => one.split("="))),
  };
  const flags = more.filter((one) => !one.includes("="));
  const argv = [
    "finetune",
    "--data",
    data,
    "--steps",
    "2",
    "--output",
    join(temporary(), "out"),
    "--json",
    ...flags,
  ];
  const ended = await lowrank(argv, { env });
  const events = ended.stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Started["events"][number]);
  const tests = existsSync(count) ? readFileSync(count, "utf8").trim().split("\n").length : 0;
  return { ended, events, tests };
}

const start = ({ events }: Started): Started["events"][number] | undefined =>
  events.find(({ type }) => type === "start");

function kept(cache: string): Record<string, unknown> {
  const folder = join(cache, "lowrank", "self-test");
  const [name] = readdirSync(folder) as [string];
  return JSON.parse(readFileSync(join(folder, name), "utf8")) as Record<string, unknown>;
}

if (testDevices().includes("gpu")) {
  test.serial("auto uses a GPU that passes its test, and tests it once", async (t) => {
    const cache = temporary();
    const first = await finetuned(cache, {});
    t.is(first.ended.status, 0, first.ended.stderr);
    t.is(start(first)?.device, "gpu");
    t.is(first.tests, 1);
    t.like(kept(cache), { passed: true, full: false });
    const second = await finetuned(cache, {});
    t.is(start(second)?.device, "gpu");
    t.is(second.tests, 0);
  });

  test.serial(
    "auto avoids a GPU with a wrong kernel, names the kernel once, and the run completes",
    async (t) => {
      const cache = temporary();
      for (const tests of [1, 0]) {
        const run = await finetuned(cache, { softmax: "wrong" });
        t.is(run.ended.status, 0, run.ended.stderr);
        t.is(start(run)?.device, "cpu");
        t.is(run.events.at(-1)?.type, "end");
        t.is(run.tests, tests);
        const warnings = run.ended.stderr.match(/LowrankWarning: [^\n]*/g) ?? [];
        t.is(warnings.length, 1, run.ended.stderr);
        t.regex(
          warnings[0] ?? "",
          /did not pass its self-test: softmax over rows \(kernels flip, softmax\) gives wrong numbers/,
        );
        t.regex(warnings[0] ?? "", /device auto is cpu; run lowrank doctor for a report/);
      }
      t.like(kept(cache), { passed: false });
      // A device chosen by name is used.
      t.is(start(await finetuned(cache, { softmax: "wrong" }, "--device", "gpu"))?.device, "gpu");
      t.is(start(await finetuned(cache, { softmax: "wrong" }, "LOWRANK_SELF_TEST=off"))?.device, "gpu");
    },
  );

  test.serial("a GPU whose test crashes is avoided, too", async (t) => {
    const cache = temporary();
    const run = await finetuned(cache, { rmsNorm: "crash" });
    t.is(run.ended.status, 0, run.ended.stderr);
    t.is(start(run)?.device, "cpu");
    t.regex(run.ended.stderr, /RMS norm ended the process of the test: SIGSEGV/);
  });

  test.serial("a test interrupted by Ctrl-C is repeated the next time", async (t) => {
    const cache = temporary();
    const run = await finetuned(cache, { rmsNorm: "interrupt" });
    t.is(run.ended.status, 0, run.ended.stderr);
    t.is(start(run)?.device, "cpu");
    t.regex(run.ended.stderr, /its test was ended by SIGINT/);
    const next = await finetuned(cache, {});
    t.is(next.tests, 1);
    t.is(start(next)?.device, "gpu");
  });

  test.serial("doctor tests again, and auto follows the result", async (t) => {
    const cache = temporary();
    await finetuned(cache, { flip: "wrong" });
    t.like(kept(cache), { passed: false });
    const env = { ...brokenEnvironment({}), BROKEN_HARDWARE: "1", XDG_CACHE_HOME: cache };
    const healthy = await lowrank(["doctor", "--device", "gpu", "--quick", "--json"], { env });
    t.is(healthy.status, 0, healthy.stderr);
    t.like(JSON.parse(healthy.stdout), { healthy: true });
    t.is(start(await finetuned(cache, {}))?.device, "gpu");
    const broken = await lowrank(["doctor", "--device", "gpu", "--quick"], {
      env: { ...env, ...brokenEnvironment({ siluMul: "wrong" }) },
    });
    t.is(broken.status, 1);
    t.regex(broken.stdout, /WRONG elementwise: gated silu/);
    t.is(start(await finetuned(cache, {}))?.device, "cpu");
  });
}
