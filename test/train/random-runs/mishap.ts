/** Random mishaps of a run. */
import type { Mishap } from "./child.js";
import type { Random } from "./random.js";

/** Signals that request an end, and the exit status after each. */
export const SIGNALS = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

const NAMES = [
  "none",
  "none",
  "kill",
  "kill",
  "kill",
  "ask",
  "ask",
  "twice",
  "closed",
  "full",
  "limit",
] as const;

export function drawMishap(random: Random): { name: string; mishap: Mishap } {
  const name = random.of(NAMES);
  // At any time from the start, or close to a line of output.
  const line = random.chance(0.6) ? { line: 1 + random.below(30) } : {};
  const after = "line" in line ? random.below(40) : 100 + random.below(1500);
  const signal = random.of(Object.keys(SIGNALS) as (keyof typeof SIGNALS)[]);
  switch (name) {
    case "kill":
      return { name, mishap: { kind: "signal", signals: [{ signal: "SIGKILL", after }], ...line } };
    case "ask":
      return { name, mishap: { kind: "signal", signals: [{ signal, after }], ...line } };
    case "twice": {
      const again = { signal, after: after + random.below(30) };
      return { name, mishap: { kind: "signal", signals: [{ signal, after }, again], ...line } };
    }
    case "closed":
      return { name, mishap: { kind: "closed", line: 1 + random.below(20) } };
    case "full":
      return { name, mishap: { kind: "full stdout" } };
    case "limit":
      return { name, mishap: { kind: "limit", blocks: random.of([1, 4, 8, 30, 60]) } };
    case "none":
      return { name, mishap: { kind: "none" } };
  }
}
