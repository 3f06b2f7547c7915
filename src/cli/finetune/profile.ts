/** Formats a run's profile as a table. */
import type { OperationProfile, ProfileEvent } from "../../train/events.js";
import { formatCount, formatPercent, formatPlural } from "../terminal/format.js";

const HEAD = ["operation", "pass", "calls", "ms", "share", "rate", "of roofline"];

/**
 * Formats one line per operation and pass, longest first: calls, milliseconds on the device, their share, the rate of the
 * limiting resource, and its percentage of the device's peak. More than 100% means that data came from a cache.
 */
export function formatProfile(profile: ProfileEvent): string[] {
  const { operations, flopsPerSecond, bytesPerSecond, seconds, leftOut, path } = profile;
  const total = operations.reduce((sum, o) => sum + o.deviceMs, 0);
  const rows = operations.map((o) => [
    o.operation,
    o.pass,
    formatCount(o.calls),
    o.deviceMs.toFixed(1),
    total > 0 ? formatPercent(o.deviceMs / total, 1) : "",
    computeRate(o, profile),
    o.deviceMs > 0 && o.attainableMs > 0 ? formatPercent(o.attainableMs / o.deviceMs, 0) : "",
  ]);
  const lines = alignColumns([HEAD, ...rows]);
  lines.push(
    `${formatCount(total)} ms on the device of ${formatCount(seconds * 1000)} ms; recording took ` +
      `${formatCount(operations.reduce((sum, o) => sum + o.hostMs, 0))} ms on the host`,
  );
  if (flopsPerSecond > 0 && bytesPerSecond > 0) {
    lines.push(
      `the roofline: ${formatGiga(flopsPerSecond)} GFLOP/s in an f32 product, ${formatGiga(bytesPerSecond)} GB/s of memory`,
    );
  }
  const missing = leftOut > 0 ? `, without its last ${formatPlural(leftOut, "event")}` : "";
  lines.push(`the trace is in ${path}${missing} (open it at ui.perfetto.dev)`);
  return lines;
}

/** Returns the rate of the limiting resource: arithmetic if it takes longer at peak rates, otherwise memory traffic. */
function computeRate(o: OperationProfile, { flopsPerSecond, bytesPerSecond }: ProfileEvent): string {
  if (o.deviceMs === 0) return "";
  const moved = o.bytesRead + o.bytesWritten;
  const seconds = o.deviceMs / 1000;
  const computes = o.flops * bytesPerSecond > moved * flopsPerSecond;
  return computes ? `${formatGiga(o.flops / seconds)} GFLOP/s` : `${formatGiga(moved / seconds)} GB/s`;
}

function formatGiga(value: number): string {
  return (value / 1e9).toFixed(1);
}

/** Aligns columns: the first two to the left, the others, which are numbers, to the right. */
function alignColumns(rows: string[][]): string[] {
  const widths = HEAD.map((_, column) => Math.max(...rows.map((row) => (row[column] as string).length)));
  return rows.map((row) =>
    row
      .map((cell, i) => (i < 2 ? cell.padEnd(widths[i] as number) : cell.padStart(widths[i] as number)))
      .join("  ")
      .trimEnd(),
  );
}
