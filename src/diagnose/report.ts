/** Formats a diagnosis as text, to be pasted into an issue. */
import { describe, isBad, type StepResult } from "../self-test/steps.js";
import type { DiagnosedDevice, Diagnosis } from "./diagnosis.js";

/** Returns the report of a diagnosis as plain lines. */
export function formatReport(diagnosis: Diagnosis): string {
  const { version, system, node, electron, environment, quick, problems, devices, seconds } = diagnosis;
  const runtime = electron === undefined ? `Node ${node}` : `Electron ${electron} (Node ${node})`;
  const lines = [
    `lowrank ${version}, ${system.platform} ${system.release} ${system.arch}, ${runtime}`,
    ...Object.entries(environment).map(([name, value]) => `${name}=${value}`),
    ...problems.map((step) => `PROBLEM: ${describe(step)}`),
  ];
  for (const device of devices) lines.push("", ...formatSection(device));
  const unhealthy = devices.filter(({ healthy }) => !healthy).map(({ info }) => info.device);
  const form = quick ? "short test" : "full test";
  lines.push(
    "",
    diagnosis.healthy
      ? `Nothing is wrong (${form}, ${seconds.toFixed(0)} s).`
      : `Something is wrong${unhealthy.length > 0 ? ` with ${unhealthy.join(" and ")}` : ""} (${form}, ${seconds.toFixed(0)} s).`,
  );
  return `${lines.join("\n")}\n`;
}

function formatSection(device: DiagnosedDevice): string[] {
  const { info, hazards, steps, healthy, seconds } = device;
  const failed = steps.filter(isBad);
  const skipped = steps.filter(({ status }) => status === "skipped");
  const passed = steps.length - failed.length - skipped.length;
  return [
    `${info.device}: ${info.name} (${info.kind === "cpu" ? info.backend : `${info.kind} GPU, ${info.backend}`})`,
    ...formatFacts(device).map((line) => `  ${line}`),
    ...hazards.map(({ id, what, source }) => `  known hazard ${id}: ${what} (${source})`),
    `  ${healthy ? "ok" : "WRONG"}: ${passed} of ${steps.length} steps passed in ${seconds.toFixed(0)} s`,
    ...failed.map((step) => `  ${step.status.toUpperCase()} ${step.family}: ${describe(step)}`),
    ...groupByReason(skipped),
    ...(info.kind === "cpu" ? [] : formatMargins(steps)),
  ];
}

function formatFacts({
  info,
  details,
  shaderCompiler,
  training,
  rates,
  longestSubmission,
}: DiagnosedDevice): string[] {
  const lines: string[] = [];
  if (info.driver !== undefined) lines.push(`driver ${info.driver}`);
  if (shaderCompiler !== undefined) lines.push(`shader compiler: ${shaderCompiler}`);
  if (details !== undefined) {
    const { f16, f16Storage, subgroupMin, subgroupMax, timestamps, cooperativeMatrices } = details;
    const subgroups =
      subgroupMin === 0
        ? "none"
        : subgroupMin === subgroupMax
          ? subgroupMin
          : `${subgroupMin} to ${subgroupMax}`;
    const matrices = cooperativeMatrices.length === 0 ? "none" : cooperativeMatrices.join("; ");
    lines.push(
      `vendor ${formatHex(details.vendor)}, model ${formatHex(details.model)}`,
      `f16 arithmetic ${formatYesNo(f16)}, f16 storage ${formatYesNo(f16Storage)}, subgroups ${subgroups}, timestamps ${formatYesNo(timestamps)}`,
      `cooperative matrices (not used): ${matrices}`,
      `largest binding ${formatBytes(details.bindingLimit)}, largest buffer ${formatBytes(details.bufferLimit)}, ` +
        `${details.storageBuffers} storage buffers a stage, ${formatBytes(details.workgroupBytes)} and ${details.invocations} invocations a workgroup`,
    );
  }
  const memory = details?.memory ?? info.memory;
  lines.push(`memory ${memory === undefined ? "not known" : formatBytes(memory)}`);
  if (rates !== undefined) {
    const products = Object.entries(rates.products).map(
      ([name, flops]) => `${name} ${(flops / 1e9).toFixed(0)} GFLOP/s`,
    );
    lines.push(`products ${products.join(", ")}; memory ${(rates.memory / 1e9).toFixed(1)} GB/s`);
  }
  if (longestSubmission !== undefined && longestSubmission > 0) {
    const limit = details?.watchdogMs;
    const limitNote = limit == null ? "nothing ends long ones" : `the system ends those of ${limit} ms`;
    lines.push(`longest submission ${longestSubmission.toFixed(0)} ms (${limitNote})`);
  }
  if (training !== undefined) {
    const { losses, expected, stepMilliseconds } = training;
    lines.push(
      `training: losses ${formatNumbers(losses)}; ${info.kind === "cpu" ? "stored" : "cpu"} ${formatNumbers(expected)}; last step ${stepMilliseconds.toFixed(0)} ms`,
    );
  }
  return lines;
}

/** Groups skipped steps by reason, since one loss skips all remaining steps. */
function groupByReason(skipped: readonly StepResult[]): string[] {
  const reasons = new Map<string, string[]>();
  for (const { name, reason = "" } of skipped) reasons.set(reason, [...(reasons.get(reason) ?? []), name]);
  return [...reasons].map(([reason, names]) => {
    const listed = names.length > 3 ? `${names.length} steps` : names.join(", ");
    return `  not run: ${listed}: ${reason}`;
  });
}

/** Formats the largest difference of each compared family. */
function formatMargins(steps: readonly StepResult[]): string[] {
  const worst = new Map<string, number>();
  for (const { family, error, status } of steps)
    if (error !== undefined && status === "passed")
      worst.set(family, Math.max(worst.get(family) ?? 0, error));
  if (worst.size === 0) return [];
  const each = [...worst].map(([family, error]) => `${family} ${error === 0 ? "0" : error.toExponential(0)}`);
  return [`  largest differences: ${each.join(", ")}`];
}

function formatYesNo(has: boolean): string {
  return has ? "yes" : "no";
}

function formatHex(value: number): string {
  return `0x${value.toString(16).padStart(4, "0")}`;
}

function formatNumbers(values: readonly number[]): string {
  return values.map((value) => value.toFixed(5)).join(" ");
}

function formatBytes(value: number): string {
  if (value >= 2 ** 30) return `${(value / 2 ** 30).toFixed(1)} GiB`;
  return value >= 2 ** 20 ? `${Math.round(value / 2 ** 20)} MiB` : `${Math.round(value / 1024)} KiB`;
}
