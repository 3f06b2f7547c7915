/** Tests devices in separate processes, so that a crash or hang does not affect this one. */
import { release } from "node:os";
import { checkCallable, checkFlag, checkKnownOptions, refuse } from "../arguments/check.js";
import type { Device, DeviceInfo } from "../device/device.js";
import { LowrankError, throwIfAborted } from "../errors.js";
import { detectPlatform } from "../native/load-error.js";
import { keep, readKept } from "../self-test/cache.js";
import { canStart, runChild } from "../self-test/child-process.js";
import { DAY, identifyGpu } from "../self-test/first-use.js";
import { listHazards } from "../self-test/hazards.js";
import { describe, isBad, type Line, type Order, type StepResult } from "../self-test/steps.js";
import type {
  DiagnosedDevice,
  DiagnosedTraining,
  DiagnoseOptions,
  Diagnosis,
  DiagnoseProgress,
  GpuDetails,
  KnownHazard,
} from "./diagnosis.js";
import type { Rates } from "./rates.js";

/** The time limit of a step, in milliseconds. A slow shader compiler may take ten seconds for one shader. */
const LIMIT = 120_000;

/** Returns the limit, or `LOWRANK_SELF_TEST_LIMIT` in milliseconds, which tests use to shorten it. */
function limit(): number {
  return Number(process.env["LOWRANK_SELF_TEST_LIMIT"]) || LIMIT;
}
/** The maximum number of processes per device; each crash uses one. */
const PROCESSES = 8;

/** Data that steps return in addition to their results. */
interface Data {
  devices?: DeviceInfo[];
  details?: GpuDetails[];
  losses?: number[];
  expected?: number[];
  stepMilliseconds?: number;
  rates?: Rates;
  longestSubmission?: number;
}

/** The results of a device's steps. */
interface Run {
  steps: StepResult[];
  data: Data;
  /** Whether a process was ended from outside. */
  interrupted: boolean;
}

/**
 * Tests devices: every kernel family forward and backward against the CPU, training steps, and performance. Each device is
 * tested in a separate process, so that a crash or hang becomes a result. This takes about a minute. The results of GPUs
 * are stored for `auto`.
 *
 * Throws `ERR_OPTION`, `ERR_NO_GPU` for a missing GPU, `ERR_INTERNAL` if the processes cannot be started (in a bundle); the
 * signal's reason.
 */
export async function diagnose(options?: DiagnoseOptions): Promise<Diagnosis> {
  const where = "diagnose";
  const {
    device,
    quick = false,
    signal,
    onProgress,
  } = checkKnownOptions(where, options, ["device", "quick", "signal", "onProgress"]);
  checkFlag(where, "quick", quick);
  if (device !== undefined && !/^(auto|cpu|gpu|gpu:\d+)$/.test(String(device)))
    refuse(where, "device", "auto, cpu, gpu or gpu:N", device);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    refuse(where, "signal", "an AbortSignal", signal);
  if (onProgress !== undefined) checkCallable(where, "onProgress", onProgress);
  throwIfAborted(signal);
  if (!canStart())
    throw new LowrankError(
      "ERR_INTERNAL",
      "diagnose: no process can be started for the test; leave the package out of the bundle, and the fuse RunAsNode of an Electron app on",
    );
  const began = performance.now();
  const listed = await runSteps({ device: "none", quick, leaveOut: [] }, signal);
  const problems = listed.steps.filter(isBad);
  const chosen = chooseDevices(device, listed.data.devices ?? [createProcessor()], listed.data.details);
  const devices: DiagnosedDevice[] = [];
  for (const info of chosen) {
    const details = listed.data.details?.find((gpu) => gpu.device === info.device);
    devices.push(await diagnoseDevice(info, details, { quick, signal, onProgress }));
  }
  const { electron } = process.versions as { electron?: string };
  return {
    version: detectPlatform().version ?? "unknown",
    system: { platform: process.platform, release: release(), arch: process.arch },
    node: process.versions.node,
    electron,
    environment: describeEnvironment(),
    quick,
    problems,
    devices,
    seconds: (performance.now() - began) / 1000,
    healthy: problems.length === 0 && devices.every(({ healthy }) => healthy),
  };
}

/** A placeholder for the CPU, if the devices could not be listed. */
function createProcessor(): DeviceInfo {
  return { device: "cpu", name: "processor", kind: "cpu", backend: process.arch };
}

function describeEnvironment(): Record<string, string> {
  const variables = Object.entries(process.env).filter(([name]) => /^(LOWRANK_|VK_|WGPU_)/.test(name));
  return Object.fromEntries(variables.sort()) as Record<string, string>;
}

/** Returns the devices to test. Throws `ERR_NO_GPU`. */
function chooseDevices(
  requested: Device | undefined,
  all: readonly DeviceInfo[],
  details: readonly GpuDetails[] = [],
): DeviceInfo[] {
  const lacks = ({ device }: DeviceInfo): boolean =>
    details.some((gpu) => gpu.device === device && gpu.lacks != null);
  const gpus = all.filter(({ kind }) => kind !== "cpu");
  const cpu = all.filter(({ kind }) => kind === "cpu");
  if (requested === undefined || requested === "auto") {
    const real = gpus.filter(({ kind }) => kind !== "software");
    return [...cpu, ...(real.length > 0 ? real : gpus)];
  }
  if (requested === "cpu") return cpu;
  const found =
    requested === "gpu"
      ? (gpus.find((gpu) => !lacks(gpu)) ?? gpus[0])
      : gpus.find(({ device }) => device === requested);
  if (found !== undefined) return [found];
  const names = all.map(({ device, name }) => `${device} (${name})`).join(", ");
  throw new LowrankError("ERR_NO_GPU", `diagnose: there is no ${requested}; there are ${names}`);
}

async function diagnoseDevice(
  info: DeviceInfo,
  details: GpuDetails | undefined,
  { quick, signal, onProgress }: DiagnoseOptions & { quick: boolean },
): Promise<DiagnosedDevice> {
  const began = performance.now();
  const { device, name, backend, driver = "" } = info;
  const lacks = details?.lacks;
  const unusable: StepResult = {
    name: "opening the device",
    family: "device",
    status: "failed",
    reason: lacks ?? undefined,
    milliseconds: 0,
  };
  const run = async (): Promise<Run> => runSteps({ device, quick, leaveOut: [] }, signal, onProgress);
  const none: Run = { steps: [unusable], data: {}, interrupted: false };
  const { steps, data, interrupted } = lacks == null ? await run() : none;
  const { losses, expected, stepMilliseconds } = data;
  const training: DiagnosedTraining | undefined =
    losses !== undefined && expected !== undefined && stepMilliseconds !== undefined
      ? { losses, expected, stepMilliseconds }
      : undefined;
  const healthy = !steps.some(isBad);
  const adapter = { name, backend, driver, vendor: details?.vendor ?? 0, platform: process.platform };
  if (info.kind !== "cpu" && !interrupted) cacheResult(info, steps, !quick);
  return {
    info,
    details,
    shaderCompiler: info.kind === "cpu" ? undefined : findShaderCompiler(backend),
    hazards: info.kind === "cpu" ? [] : listHazards(adapter).map(createUntested),
    steps,
    training,
    rates: data.rates,
    longestSubmission: data.longestSubmission,
    seconds: (performance.now() - began) / 1000,
    healthy,
  };
}

function createUntested({ id, what, effect, source }: KnownHazard): KnownHazard {
  return { id, what, effect, source };
}

function findShaderCompiler(backend: string): string {
  if (backend === "DX12 (FXC)") return "FXC (d3dcompiler_47.dll)";
  if (backend.startsWith("DX12")) return "DXC";
  return backend === "Metal" ? "the driver's, from MSL" : "the driver's, from SPIR-V";
}

/** Caches the result for `auto`. A short test that passed does not replace the result of a full one. */
function cacheResult(info: DeviceInfo, steps: readonly StepResult[], full: boolean): void {
  const owner = identifyGpu(info);
  const failed = steps.find(isBad);
  if (failed === undefined && !full && readKept(owner)?.full === true) return;
  const until = failed?.status === "hung" ? Date.now() + DAY : undefined;
  keep(owner, { passed: failed === undefined, full, reason: failed && describe(failed), until });
}

/** Runs all steps of a device. If a process ends inside a step, a new process runs the remaining ones. */
async function runSteps(
  order: Order,
  signal?: AbortSignal,
  onProgress?: (progress: DiagnoseProgress) => void,
): Promise<Run> {
  const run: Run = { steps: [], data: {}, interrupted: false };
  let plan: { name: string; family: string }[] | undefined;
  const take = (line: Line): void => {
    if (line.event === "plan") plan ??= line.steps;
    if (line.event === "begin") {
      const steps = Math.max(plan?.length ?? 0, run.steps.length + 1);
      onProgress?.({ device: order.device, name: line.name, step: run.steps.length + 1, steps });
    }
    if (line.event === "end") {
      run.steps.push(line.result);
      Object.assign(run.data, line.data);
    }
  };
  for (let processes = 1; ; processes++) {
    const leaveOut = run.steps.map(({ name }) => name);
    const ended = await runChild({ ...order, leaveOut }, limit(), take, signal);
    const last = ended.lines.at(-1);
    if (last?.event === "done") return run;
    run.interrupted ||= ended.interrupted;
    if (last?.event !== "end") run.steps.push(describeUnfinished(last, ended));
    const opened = run.steps.find(({ name }) => name === "opening the device");
    const lost = opened !== undefined && isBad(opened);
    if (lost || processes === PROCESSES || last === undefined) {
      run.steps.push(
        ...listSkipped(
          plan,
          run.steps,
          lost ? "the device does not open" : "too many steps ended their process",
        ),
      );
      return run;
    }
  }
}

/** Returns the result of the step in which a process ended. */
function describeUnfinished(
  last: Line | undefined,
  { died, hung, stderr }: { died: string | undefined; hung: boolean; stderr: string },
): StepResult {
  const step = last?.event === "begin" ? last : { name: "starting the test", family: "device" };
  const output = stderr === "" ? "" : `; it said: ${stderr.split("\n").at(-1) ?? ""}`;
  const { name, family } = step;
  return {
    name,
    family,
    status: hung ? "hung" : "crashed",
    reason: `${died ?? "it stopped"}${output}`,
    milliseconds: 0,
  };
}

/** Returns the remaining steps of the plan as skipped. */
function listSkipped(
  plan: readonly { name: string; family: string }[] | undefined,
  steps: readonly StepResult[],
  reason: string,
): StepResult[] {
  const done = new Set(steps.map(({ name }) => name));
  return (plan ?? [])
    .filter(({ name }) => !done.has(name))
    .map(({ name, family }) => ({ name, family, status: "skipped", reason, milliseconds: 0 }));
}
