/** A diagnosis: its checks, and its reports about a broken GPU and about a driver that ends the process. */
import { readdirSync, readFileSync } from "node:fs";
import test from "ava";
import { diagnose, type DiagnosedDevice, type StepResult } from "../../src/index.js";
import { listChecks } from "../../src/diagnose/checks/index.js";
import { compare, type Outcome } from "../../src/diagnose/checks/check.js";
import { formatReport } from "../../src/diagnose/report.js";
import { TOLERANCES } from "../../src/diagnose/checks/tolerances.js";
import { testDevices } from "../devices.js";
import { temporary } from "../hashed.js";
import { brokenEnvironment, type Broken } from "./child.js";

const kernels = new URL("../../crates/engine/src/kernels/", import.meta.url);

// The processes run from sources, and do not use the user's cache.
Object.assign(process.env, brokenEnvironment({}), { XDG_CACHE_HOME: temporary() });

async function diagnosed(device: "cpu" | "gpu", broken: Broken, limit?: number): Promise<DiagnosedDevice> {
  process.env["BROKEN"] = brokenEnvironment(broken)["BROKEN"];
  if (limit !== undefined) process.env["LOWRANK_SELF_TEST_LIMIT"] = String(limit);
  try {
    const { devices, problems } = await diagnose({ device, quick: true });
    if (problems.length > 0) throw new Error(JSON.stringify(problems));
    return devices[0] as DiagnosedDevice;
  } finally {
    process.env["BROKEN"] = "";
    delete process.env["LOWRANK_SELF_TEST_LIMIT"];
  }
}

const bad = ({ steps }: DiagnosedDevice): StepResult[] =>
  steps.filter(({ status }) => status !== "passed" && status !== "skipped");

test("every kernel family has a tolerance with a reason, and a check in the quick and the full form", (t) => {
  const folders = readdirSync(kernels, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  const families = [...folders.map(({ name }) => name), "optim"].sort();
  t.deepEqual(Object.keys(TOLERANCES).sort(), families);
  for (const { why } of Object.values(TOLERANCES)) t.true(why.length > 10);
  for (const quick of [false, true]) {
    const checked = new Set<string>(listChecks(quick).map(({ family }) => family));
    t.deepEqual([...checked].sort(), families, quick ? "the short form" : "the full form");
  }
  const names = listChecks(false).map(({ name }) => name);
  t.is(new Set(names).size, names.length, "each has a different name");
});

test("values are compared relative to the largest, integers exactly, and NaN and infinities by position", (t) => {
  const outcome = (values: ArrayLike<number>, name = "output"): Outcome => ({
    values: new Map([[name, values]]),
    kernels: { forward: ["f"], backward: ["b"] },
  });
  const check = { family: "softmax" } as const;
  const found = (
    got: ArrayLike<number>,
    expected: ArrayLike<number>,
    name?: string,
  ): ReturnType<typeof compare> => compare(check, outcome(got, name), outcome(expected, name));
  t.is(found([1, 100.001], [1, 100]).wrong, undefined);
  t.like(found([1, 100.01], [1, 100]), { wrong: { at: 1, got: 100.01, expected: 100 }, kernels: ["f"] });
  t.deepEqual(found([0, 1], [1, 1], "gradient of x").kernels, ["b"]);
  t.truthy(found(Int32Array.of(7, 8), Int32Array.of(7, 9)).wrong);
  t.is(found([NaN, Infinity], [NaN, Infinity]).wrong, undefined);
  for (const [got, expected] of [
    [NaN, 1],
    [1, NaN],
    [Infinity, 1],
    [Infinity, -Infinity],
  ] as const)
    t.is(found([got], [expected]).wrong?.error, Infinity);
  t.is(found([1], [1, 2]).wrong?.error, Infinity);
});

test("the cpu passes", async (t) => {
  const device = await diagnosed("cpu", {});
  t.deepEqual(bad(device), []);
  t.true(device.steps.length > 45);
  t.is(device.training?.losses.length, 2);
});

test("other devices are refused", async (t) => {
  await t.throwsAsync(diagnose({ device: "gpu:99" }), {
    code: "ERR_NO_GPU",
    message: /there is no gpu:99; there are cpu/,
  });
  await t.throwsAsync(diagnose({ device: "meta:cpu" }), {
    code: "ERR_OPTION",
    message: /auto, cpu, gpu or gpu:N/,
  });
  await t.throwsAsync(diagnose({ signal: AbortSignal.abort(new Error("enough")) }), { message: "enough" });
});

if (testDevices().includes("gpu")) {
  test.serial("the gpu passes, and every kernel of a language model was launched", async (t) => {
    const seen: string[] = [];
    const diagnosis = await diagnose({
      device: "gpu",
      quick: true,
      onProgress: ({ name, step, steps }) => void seen.push(`${name} ${step <= steps}`),
    });
    const { healthy } = diagnosis;
    const [device] = diagnosis.devices as [DiagnosedDevice];
    t.deepEqual(bad(device), []);
    t.true(healthy);
    t.is(seen.length, device.steps.length);
    t.true(device.details !== undefined && device.details.bindingLimit > 0);
    const launched = new Set(device.steps.flatMap(({ kernels: names = [] }) => names));
    for (const name of [
      "gemm",
      "softmax",
      "norm",
      "norm backward",
      "attention",
      "attention_backward_kv",
      "adamw",
    ])
      t.true(launched.has(name), name);
    t.regex(
      formatReport({ ...(await diagnose({ device: "gpu", quick: true })) }),
      /Nothing is wrong \(short test/,
    );
  });

  test.serial("a wrong kernel is named, forward and gradients", async (t) => {
    const device = await diagnosed("gpu", { softmax: "wrong", flip: "wrong" });
    t.deepEqual(
      bad(device).map(({ name, status }) => [name, status]),
      [
        ["flip", "wrong"],
        ["softmax over rows", "wrong"],
        ["softmax over columns", "wrong"],
      ],
    );
    t.true(bad(device)[1]?.kernels?.includes("softmax"));
    t.false(device.healthy);
    const text = formatReport({
      version: "1",
      system: { platform: "p", release: "r", arch: "a" },
      node: "1",
      environment: {},
      quick: true,
      problems: [],
      devices: [device],
      seconds: 1,
      healthy: false,
    });
    t.regex(
      text,
      /WRONG softmax: softmax over rows \(kernels [^)]*softmax[^)]*\) gives wrong numbers: output is/,
    );
    t.regex(text, /Something is wrong with gpu:0/);
  });

  test.serial("a crash, a lost device and a hang are results, and the other steps are run", async (t) => {
    const device = await diagnosed("gpu", { softmax: "crash", maxPool: "throw", cumsum: "hang" }, 30_000);
    const found = Object.fromEntries(bad(device).map(({ name, status, reason }) => [name, [status, reason]]));
    t.deepEqual(Object.keys(found), [
      "softmax over rows",
      "softmax over columns",
      "running sums of rows",
      "maximum pool",
    ]);
    t.deepEqual(found["softmax over rows"]?.[0], "crashed");
    t.regex(found["softmax over rows"]?.[1] ?? "", /SIGSEGV/);
    t.deepEqual(found["running sums of rows"]?.[0], "hung");
    t.regex(found["running sums of rows"]?.[1] ?? "", /no answer for 30 s/);
    t.deepEqual(found["maximum pool"], ["failed", "the GPU was lost: on purpose"]);
    t.is(device.steps.find(({ name }) => name === "training steps")?.status, "passed");
  });
}

test("each tolerance has the engine's own source", (t) => {
  const engine = readFileSync(new URL("../../crates/engine/src/ops/checks.rs", import.meta.url), "utf8");
  t.regex(engine, /pub const TOLERANCE: f64 = 1e-5;/);
});
