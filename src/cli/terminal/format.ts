/** Formats numbers for display. */
import { formatSize } from "../../arguments/byte-size.js";
import type { OffloadedBytes } from "../../models/offload.js";

/** 1,234,567 */
export function formatCount(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** 260K, 134.5M, 8.03B */
export function shorten(value: number): string {
  for (const [unit, size] of [
    ["T", 1e12],
    ["B", 1e9],
    ["M", 1e6],
    ["K", 1e3],
  ] as const) {
    if (value >= size) return `${Number((value / size).toPrecision(4))}${unit}`;
  }
  return String(Math.round(value));
}

export { formatSize } from "../../arguments/byte-size.js";

/** 12 GiB in their file and 3 GiB in memory */
export function formatOffloaded({ inFile, inMemory }: OffloadedBytes): string {
  const file = inFile > 0 || inMemory === 0 ? [`${formatSize(inFile)} in their file`] : [];
  return [...file, ...(inMemory > 0 ? [`${formatSize(inMemory)} in memory`] : [])].join(" and ");
}

/** 9s, 2m 05s, 3h 04m */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  const total = Math.max(0, Math.round(seconds));
  const pad = (value: number): string => String(value).padStart(2, "0");
  if (total < 60) return `${total}s`;
  if (total < 3600) return `${Math.floor(total / 60)}m ${pad(total % 60)}s`;
  return `${Math.floor(total / 3600)}h ${pad(Math.floor((total % 3600) / 60))}m`;
}

/** 2.00e-4 */
export function formatRate(value: number): string {
  return value === 0 ? "0" : value.toExponential(2);
}

/** Three significant digits: 4.12, 41.2, 412. */
export function formatSpeed(value: number): string {
  if (!Number.isFinite(value)) return "?";
  return value >= 100 ? formatCount(value) : value.toPrecision(3);
}

export function formatPercent(share: number, digits = 2): string {
  return `${(100 * share).toFixed(digits)}%`;
}

export function formatPlural(value: number, noun: string): string {
  return `${formatCount(value)} ${noun}${value === 1 ? "" : "s"}`;
}
