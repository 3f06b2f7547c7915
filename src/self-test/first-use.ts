/**
 * Whether `auto` may use a GPU: once its kernels have given right numbers in a process of its own. The result is kept, so
 * that it takes a few seconds for each driver and version of the package.
 */
import { here } from "../native-load.js";
import { keep, readKept, type Kept, type Owner } from "./cache.js";
import { canStart, runChild, runChildSync, type Ended } from "./child-process.js";
import { hazardsOf } from "./hazards.js";
import { describe, isBad, type Line, type Order } from "./steps.js";

/** A GPU that is to be tested. */
export interface Gpu {
  /** As options name it: `gpu:0`. */
  device: string;
  name: string;
  backend: string;
  driver?: string | undefined;
  /** The PCI number of the vendor; 0 where it is not known. */
  vendor: number;
}

/** What is known of a GPU. */
export interface Verdict {
  usable: boolean;
  /** Why not; or, of one that is used without a test, why there was none. */
  reason?: string | undefined;
}

/** Milliseconds that the process may be silent, and those that it may take in all where its caller waits. */
const SILENCE = 120_000;
const WHOLE = 300_000;
/** Milliseconds that a test without an end counts for. */
export const DAY = 24 * 60 * 60 * 1000;

/** Whose result that of a GPU is. */
export function ownerOf({ name, backend, driver = "" }: Pick<Gpu, "name" | "backend" | "driver">): Owner {
  return { adapter: name, backend, driver, package: here().version ?? "unknown" };
}

/** Whether `LOWRANK_SELF_TEST` turns the test off. */
function isOff(): boolean {
  return process.env["LOWRANK_SELF_TEST"] === "off";
}

function orderFor({ name, backend, driver = "", device, vendor }: Gpu): Order {
  const hazards = hazardsOf({ name, backend, driver, vendor, platform: process.platform });
  return { device, quick: !hazards.some(({ effect }) => effect === "full-test"), leaveOut: [] };
}

/** What is known without a test; undefined where it has to be run. */
function known(gpu: Gpu, order: Order): Verdict | undefined {
  if (isOff()) return { usable: true, reason: "not tested, since LOWRANK_SELF_TEST is off" };
  const kept = readKept(ownerOf(gpu));
  // A short form that passed is not enough where the full test is wanted.
  if (kept !== undefined && (!kept.passed || kept.full || order.quick))
    return { usable: kept.passed, reason: kept.reason };
  return canStart()
    ? undefined
    : { usable: true, reason: "not tested, since no process can be started for it" };
}

/** The result of a process; undefined where it tells nothing of the GPU. */
function judge({ lines, died, hung, stderr }: Ended, full: boolean): Kept | undefined {
  const bad = lines.find((line) => line.event === "end" && isBad(line.result));
  if (bad?.event === "end") return { passed: false, full, reason: describe(bad.result) };
  if (lines.at(-1)?.event === "done") return { passed: true, full };
  const begun = lines.findLast((line): line is Line & { event: "begin" } => line.event === "begin");
  // A process that began no step had its own reasons.
  if (begun === undefined) return undefined;
  const said = stderr === "" ? "" : ` (${stderr.split("\n").at(-1) ?? ""})`;
  const reason = `${begun.name} ended the process of the test: ${died ?? "it stopped"}${said}`;
  // A machine that is busy with other work looks like a GPU that hangs: that is tried again another day.
  return { passed: false, full, reason, until: hung ? Date.now() + DAY : undefined };
}

function settle(gpu: Gpu, ended: Ended, order: Order): Verdict {
  const kept = judge(ended, !order.quick);
  if (kept === undefined)
    return { usable: true, reason: "not tested, since the test's process did not start" };
  keep(ownerOf(gpu), kept);
  return { usable: kept.passed, reason: kept.reason };
}

const NOT_STARTED: Verdict = { usable: true, reason: "not tested, since the test's process did not start" };

/** Tests a GPU unless its result is kept, and waits for that: a few seconds, once. */
export function testSync(gpu: Gpu): Verdict {
  const order = orderFor(gpu);
  const found = known(gpu, order);
  if (found !== undefined) return found;
  try {
    return settle(gpu, runChildSync(order, WHOLE), order);
  } catch {
    return NOT_STARTED;
  }
}

/** The same without keeping the thread. */
export async function test(gpu: Gpu): Promise<Verdict> {
  const order = orderFor(gpu);
  const found = known(gpu, order);
  if (found !== undefined) return found;
  try {
    return settle(gpu, await runChild(order, SILENCE, () => {}), order);
  } catch {
    return NOT_STARTED;
  }
}
