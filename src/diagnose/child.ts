/**
 * The process of a self-test: runs each step on the device and on the CPU, and writes each result as a line of JSON.
 * Started by `self-test/child-process.ts`; nothing imports it.
 */
import { writeSync } from "node:fs";
import { devices, readGpuDetails } from "../device/device.js";
import { call, native, session } from "../native/binding.js";
import type { GpuDetails } from "../native/binding.js";
import { type Line, type Order, type StepResult } from "../self-test/steps.js";
import { compare, type Check, type Outcome, type CheckedDevice } from "./checks/check.js";
import { listChecks } from "./checks/index.js";
import { measure } from "./rates.js";
import { LOSS_TOLERANCE, STORED_LOSSES, train } from "./training.js";

/** A step of the plan. Its result does not contain a name; `data` is passed to the parent process. */
interface Step {
  name: string;
  family: string;
  run: () => Promise<Omit<StepResult, "name" | "family" | "milliseconds"> & { data?: unknown }>;
}

/** The number of training steps. */
const FULL_STEPS = 5;
const QUICK_STEPS = 2;

function write(line: Line): void {
  // Synchronous, since the next step may end the process.
  writeSync(1, `${JSON.stringify(line)}\n`);
}

/** Errors after which the device stays unusable, so that a new process must continue. */
const LATCHED = new Set(["ERR_DEVICE_LOST", "ERR_INTERNAL"]);

function parseOrder(text: string | undefined): Order {
  const { device, quick, leaveOut } = JSON.parse(text ?? "{}") as Partial<Order>;
  return { device: device ?? "gpu", quick: quick ?? true, leaveOut: leaveOut ?? [] };
}

/** Lists the GPUs; also in a separate process, since a driver may crash during enumeration. */
const LISTING: Step = {
  name: "listing the GPUs",
  family: "device",
  run: async () => ({
    status: "passed",
    data: { devices: devices(), details: call(() => native().gpuDetails()) },
  }),
};

function listSteps({ device, quick }: Order): Step[] {
  const place = device as CheckedDevice;
  const isCpu = device === "cpu";
  const readDetails = (): GpuDetails | undefined => (isCpu ? undefined : readGpuDetails(place));
  if (device === "none") return [LISTING];
  const first: Step[] = [
    {
      name: "opening the device",
      family: "device",
      run: async () => {
        session().memory(place);
        return { status: "passed" };
      },
    },
  ];
  const checks = listChecks(quick).map((check) => ({
    name: check.name,
    family: check.family,
    run: async () => (isCpu ? compareRepeats(check) : compareWithCpu(check, place, readDetails())),
  }));
  const training: Step = {
    name: "training steps",
    family: "training",
    run: async () => runTraining(place, quick ? QUICK_STEPS : FULL_STEPS),
  };
  const rates: Step = {
    name: "rates",
    family: "device",
    run: async () => {
      const known = readDetails();
      const has = { f16: known?.f16 ?? true, f16Storage: known?.f16Storage ?? true };
      const data = {
        rates: await measure(place, has),
        longestSubmission: session().longestSubmission(place),
      };
      return { status: "passed", data };
    },
  };
  return [...first, ...checks, training, ...(quick ? [] : [rates])];
}

async function compareWithCpu(
  check: Check,
  device: CheckedDevice,
  details: GpuDetails | undefined,
): ReturnType<Step["run"]> {
  if (check.readsF16 === true && details?.f16Storage === false)
    return { status: "skipped", reason: "this GPU does not read f16" };
  const expected = await check.run("cpu");
  const outcome = await check.run(device);
  return judge(compare(check, outcome, expected));
}

/** On the CPU: checks that two runs give identical bits. */
async function compareRepeats(check: Check): ReturnType<Step["run"]> {
  const first = await check.run("cpu");
  const again = await check.run("cpu");
  return judge(compare({ ...check, tolerance: 0 }, again, first));
}

function judge(found: ReturnType<typeof compare>): Awaited<ReturnType<Step["run"]>> {
  return { status: found.wrong === undefined ? "passed" : "wrong", ...found };
}

async function runTraining(device: CheckedDevice, count: number): ReturnType<Step["run"]> {
  const trained = await train(device, count);
  const expected = device === "cpu" ? [...STORED_LOSSES] : (await train("cpu", count)).losses;
  const compareLosses = (values: readonly number[]): Outcome => ({
    values: new Map([["loss of each step", Float64Array.from(values.slice(0, count))]]),
    kernels: { forward: [], backward: [] },
  });
  const { error, wrong } = compare(
    { family: "gemm", tolerance: LOSS_TOLERANCE },
    compareLosses(trained.losses),
    compareLosses(expected),
  );
  const data = {
    losses: trained.losses,
    expected: expected.slice(0, count),
    stepMilliseconds: trained.milliseconds,
  };
  return { ...judge({ error, wrong }), data };
}

/** Runs a step and writes its result. Returns whether the device can continue. */
async function run(step: Step): Promise<boolean> {
  const { name, family } = step;
  write({ event: "begin", name, family });
  const began = performance.now();
  const measureSince = (): number => Math.round(performance.now() - began);
  try {
    const { data, ...found } = await step.run();
    write({ event: "end", result: { name, family, ...found, milliseconds: measureSince() }, data });
    return true;
  } catch (error) {
    const { code, message } = error as { code?: string; message?: string };
    const reason = message ?? String(error);
    write({ event: "end", result: { name, family, status: "failed", reason, milliseconds: measureSince() } });
    return code === undefined || !LATCHED.has(code);
  }
}

async function runChild(): Promise<void> {
  const order = parseOrder(process.argv[2]);
  const left = listSteps(order).filter(({ name }) => !order.leaveOut.includes(name));
  write({ event: "plan", steps: left.map(({ name, family }) => ({ name, family })) });
  for (const step of left) {
    // After a device loss, all further steps would fail.
    if (!(await run(step))) return;
  }
  write({ event: "done" });
}

await runChild();
