/** What of a run's options `memory` may choose. */
import type { FinetuneOptions } from "../options.js";

/** Options that are chosen where they were left open. Of batches it is the rows of a step that are kept. */
const KEPT = ["gradientCheckpointing", "dtype", "quantize", "maxLength"] as const;

/** One of them. */
export type Keepable = (typeof KEPT)[number];

/** Names of options that whoever gave them has filled in with defaults of its own, as a command line has. */
export const OPEN = Symbol("left open");

/** Options that `memory` leaves as they are. */
export function givenIn(options: FinetuneOptions & { readonly [OPEN]?: readonly string[] }): Keepable[] {
  const open = options[OPEN] ?? [];
  return KEPT.filter((name) => options[name] !== undefined && !open.includes(name));
}

/** Whether the value of an option is a default, and not the caller's. */
export function isLeftOpen(
  options: FinetuneOptions & { readonly [OPEN]?: readonly string[] },
  name: string,
): boolean {
  return options[OPEN]?.includes(name) ?? false;
}
