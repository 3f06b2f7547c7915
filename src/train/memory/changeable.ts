/** What of a run's options `memory` may choose. */
import type { FinetuneOptions } from "../options.js";

/** The options that may be chosen, where they were left open. */
export const CHANGEABLE = [
  "gradientCheckpointing",
  "batchSize",
  "gradientAccumulation",
  "dtype",
  "quantize",
  "maxLength",
] as const satisfies (keyof FinetuneOptions)[];

/** One of them. */
export type Changeable = (typeof CHANGEABLE)[number];

/** Names of options that whoever gave them has filled in with defaults of its own, as a command line has. */
export const OPEN = Symbol("left open");

/** Options that `memory` leaves as they are. */
export function givenIn(options: FinetuneOptions & { readonly [OPEN]?: readonly string[] }): Changeable[] {
  const open = options[OPEN] ?? [];
  return CHANGEABLE.filter((name) => options[name] !== undefined && !open.includes(name));
}
