/** The options that `memory` may override. */
import { OPTIONS } from "./options/table.js";
import type { FinetuneOptions } from "./options.js";

type Options = typeof OPTIONS;

/** The options that `memory` sets if they are absent. For batches, the number of rows per step is kept instead. */
const KEPT = Object.entries(OPTIONS).flatMap(([name, entry]) =>
  "byMemory" in entry && entry.byMemory === "if absent" ? [name as Keepable] : [],
);

/** One of those options. */
export type Keepable = {
  [Name in keyof Options]: Options[Name] extends { readonly byMemory: "if absent" } ? Name : never;
}[keyof Options];

/** The key of a list of options that have a caller's default as their value, for example the command line's. */
export const OPEN = Symbol("left open");

/** Returns the options that `memory` must not change, because they were given. */
export function listGiven(options: FinetuneOptions & { readonly [OPEN]?: readonly string[] }): Keepable[] {
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
