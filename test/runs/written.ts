/** Folders of runs, written without training. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { formatEvent, formatHeader } from "../../src/runs/events-file.js";

/** 12:00 of a day, in milliseconds. */
export const NOON = Date.UTC(2026, 10, 27, 12);

/** Returns the start event of a run of `steps` steps. */
export function started(steps: number, more: Record<string, unknown> = {}): { type: string } {
  const settings = { model: "/models/tiny", rank: 16, learningRate: 2e-4, steps, resumedFrom: 0 };
  return { type: "start", ...settings, ...more } as { type: string };
}

/** Returns the `step`th of `steps` steps, with a loss that falls. */
export function stepped(step: number, steps: number, more: Record<string, unknown> = {}): { type: string } {
  return {
    type: "step",
    step,
    steps,
    loss: 1 + 3 / Math.sqrt(step),
    learningRate: 2e-4 * (1 - step / steps),
    gradNorm: 0.5 + 1 / step,
    tokens: 100 * step,
    tokensPerSecond: 1000 + (step % 7),
    etaSeconds: (steps - step) / 10,
    memoryBytes: 3e8,
    merged: 1,
    ...more,
  } as { type: string };
}

/** Writes a run's file into a folder, one event a second; returns the file. */
export function writeRun(
  folder: string,
  events: readonly { type: string }[],
  { lineage = "0123456789ab", at = NOON } = {},
): string {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, "events.jsonl");
  const lines = events.map((event, i) => formatEvent(event, at + 1000 * i));
  writeFileSync(file, Buffer.concat([formatHeader([{ lineage }]), ...lines]));
  return file;
}
