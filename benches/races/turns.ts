/** A lowrank side of a race: takes a turn for each line on stdin. */
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

/** The peak of the resident set so far, in MiB; null if the system has no /proc. */
function peakMiB(): number | null {
  try {
    const line = /^VmHWM:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"));
    return line === null ? null : Number(line[1]) / 1024;
  } catch {
    return null;
  }
}

/** A warm-up turn, a line {"ready": true}, then a turn for each line on stdin; `before` runs first in each turn, untimed. */
export async function race(
  turn: () => Promise<Record<string, unknown>>,
  before?: () => Promise<unknown>,
): Promise<void> {
  await turn();
  console.log(JSON.stringify({ ready: true }));
  for await (const _ of createInterface({ input: process.stdin })) {
    await before?.();
    const start = performance.now();
    const result = await turn();
    console.log(JSON.stringify({ ms: performance.now() - start, peakMiB: peakMiB(), ...result }));
  }
}
