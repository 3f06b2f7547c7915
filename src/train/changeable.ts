/** The options that `memory` may override. */
import type { FinetuneOptions } from "./options.js";

/** Options that `memory` sets unless they are given. For batches, the number of rows per step is kept instead. */
const KEPT = ["gradientCheckpointing", "dtype", "quantize", "maxLength"] as const;

/** One of those options. */
export type Keepable = (typeof KEPT)[number];

/** The key of a list of options that have a caller's default as their value, for example the command line's. */
export const OPEN = Symbol("left open");

/** Returns the options that `memory` must not change, because they were given. */
export function givenIn(options: FinetuneOptions & { readonly [OPEN]?: readonly string[] }): Keepable[] {
  const open = options[OPEN] ?? [];
  return KEPT.filter((name) => options[name] !== undefined && !open.includes(name));
}

/** Whether the value of an option is a default rather than the user's. */
export function isLeftOpen(
  options: FinetuneOptions & { readonly [OPEN]?: readonly string[] },
  name: string,
): boolean {
  return options[OPEN]?.includes(name) ?? false;
}
