/**
 * Decides whether `auto` may use a GPU: a separate process tests its kernels once. The result is cached, so the test takes
 * a few seconds per driver and package version.
 */
import { detectPlatform } from "../native/load-error.js";
import { keep, readKept, type CachedResult, type Owner } from "./cache.js";
import { canStart, runChild, runChildSync, type Ended } from "./child-process.js";
import { listHazards } from "./hazards.js";
import { describe, isBad, type Line, type Order } from "./steps.js";

/** A GPU to test. */
export interface Gpu {
  /** Its name in options: `gpu:0`. */
  device: string;
  name: string;
  backend: string;
  driver?: string | undefined;
  /** The PCI number of the vendor; 0 if unknown. */
  vendor: number;
}

/** Whether a GPU may be used. */
export interface Verdict {
  usable: boolean;
  /** Why it may not be used, or why it is used without a test. */
  reason?: string | undefined;
}

/** The maximum time between two lines, and the maximum duration of a synchronous test, in milliseconds. */
const SILENCE = 120_000;
const WHOLE = 300_000;
/** Validity of the result of a test that hung, in milliseconds. */
export const DAY = 24 * 60 * 60 * 1000;

/** The cache key of a GPU. */
export function identifyGpu({ name, backend, driver = "" }: Pick<Gpu, "name" | "backend" | "driver">): Owner {
  return { adapter: name, backend, driver, package: detectPlatform().version ?? "unknown" };
}

/** Whether `LOWRANK_SELF_TEST` turns the test off. */
function isOff(): boolean {
  return process.env["LOWRANK_SELF_TEST"] === "off";
}

function createOrder({ name, backend, driver = "", device, vendor }: Gpu): Order {
  const hazards = listHazards({ name, backend, driver, vendor, platform: process.platform });
  return { device, quick: !hazards.some(({ effect }) => effect === "full-test"), leaveOut: [] };
}

/** The verdict without a test; undefined if the test must run. */
function findVerdict(gpu: Gpu, order: Order): Verdict | undefined {
  if (isOff()) return { usable: true, reason: "not tested, since LOWRANK_SELF_TEST is off" };
  const cached = readKept(identifyGpu(gpu));
  // A short test that passed is not enough if a hazard requires the full test.
  if (cached !== undefined && (!cached.passed || cached.full || order.quick))
    return { usable: cached.passed, reason: cached.reason };
  return canStart()
    ? undefined
    : { usable: true, reason: "not tested, since no process can be started for it" };
}

/** The result of a process; undefined if it says nothing about the GPU. */
function judge({ lines, died, hung, interrupted, stderr }: Ended, full: boolean): CachedResult | undefined {
  const failed = lines.find((line) => line.event === "end" && isBad(line.result));
  if (failed?.event === "end") return { passed: false, full, reason: describe(failed.result) };
  if (lines.at(-1)?.event === "done") return { passed: true, full };
  const lastBegun = lines.findLast((line): line is Line & { event: "begin" } => line.event === "begin");
  // A process that began no step, or was ended from outside, did not fail because of the GPU.
  if (lastBegun === undefined || interrupted) return undefined;
  const output = stderr === "" ? "" : ` (${stderr.split("\n").at(-1) ?? ""})`;
  const reason = `${lastBegun.name} ended the process of the test: ${died ?? "it stopped"}${output}`;
  // A busy machine looks like a GPU that hangs, so the test is repeated after a day.
  return { passed: false, full, reason, until: hung ? Date.now() + DAY : undefined };
}

const NOT_STARTED: Verdict = { usable: true, reason: "not tested, since the test's process did not start" };

/** Caches the result of a process, if it has one. An interrupted test is repeated the next time. */
function settle(gpu: Gpu, ended: Ended, order: Order): Verdict {
  const verdict = judge(ended, !order.quick);
  if (verdict !== undefined) {
    keep(identifyGpu(gpu), verdict);
    return { usable: verdict.passed, reason: verdict.reason };
  }
  return ended.interrupted ? { usable: false, reason: `its test was ended by ${ended.died}` } : NOT_STARTED;
}

/** Tests a GPU unless its result is cached. Blocks for a few seconds the first time. */
export function testSync(gpu: Gpu): Verdict {
  const order = createOrder(gpu);
  const found = findVerdict(gpu, order);
  if (found !== undefined) return found;
  try {
    return settle(gpu, runChildSync(order, WHOLE), order);
  } catch {
    return NOT_STARTED;
  }
}

/** Like `testSync`, without blocking the thread. */
export async function test(gpu: Gpu): Promise<Verdict> {
  const order = createOrder(gpu);
  const found = findVerdict(gpu, order);
  if (found !== undefined) return found;
  try {
    return settle(gpu, await runChild(order, SILENCE, () => {}), order);
  } catch {
    return NOT_STARTED;
  }
}
