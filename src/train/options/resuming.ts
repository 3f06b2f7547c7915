/** The rules of resuming, from the table of options. */
import { type AnyGroup, type AnyOption, isGroup } from "./entry.js";
import { OPTIONS } from "./table.js";

const ENTRIES: readonly [string, AnyOption | AnyGroup][] = Object.entries(OPTIONS);

/** Returns the options with a property, in the order of the table. */
function listOptionsThat(hold: (option: AnyOption) => boolean): string[] {
  return ENTRIES.flatMap(([name, entry]) => (!isGroup(entry) && hold(entry) ? [name] : []));
}

/** The options that cannot change: the adapter, the optimizer's state and the position in the data depend on them. */
export const FIXED_OPTIONS: readonly string[] = ENTRIES.flatMap(([name, entry]) => {
  if (entry.whenResuming === "fixed") return [name];
  if (!isGroup(entry)) return [];
  const fixed = Object.entries(entry.fields).filter(([, { whenResuming }]) => whenResuming === "fixed");
  return fixed.map(([field]) => `${name}.${field}`);
});

/** The options that are not compared: they do not describe the run, or are compared by content. */
export const FREE_OPTIONS: readonly string[] = listOptionsThat(({ whenResuming }) => whenResuming === "free");

/** The options whose paths are resolved against the run's original folder. */
export const RELOCATED_OPTIONS: readonly string[] = listOptionsThat(({ relocated }) => relocated === true);

/** Returns the option that a given option replaces in the record; undefined if there is none. */
export function findExcluded(name: string): string | undefined {
  const entry = OPTIONS[name as keyof typeof OPTIONS] as AnyOption | AnyGroup | undefined;
  return entry === undefined || isGroup(entry) ? undefined : entry.excludes;
}
