/** How messages call an option: as the library does, or by the flag of the command that runs. */

/** Calls an option of the library by another name; undefined where the command has no such option. */
export type OptionNames = (option: string) => string | undefined;

const AS_IN_THE_LIBRARY: OptionNames = (option) => option;
let naming = AS_IN_THE_LIBRARY;

/** An option as messages call it. `option` is its name in the library, such as `batchSize` or `optimizer.lr`. */
export function optionName(option: string): string {
  return naming(option) ?? option;
}

/** Whether the caller has such an option: any of the library's, or a flag of the command that runs. */
export function hasOption(option: string): boolean {
  return naming(option) !== undefined;
}

/** An option and its value as they are written: `batchSize 4`; a flag that is set stands alone. */
export function optionSetting(option: string, value: unknown): string {
  const name = optionName(option);
  return value === true && name !== option ? name : `${name} ${String(value)}`;
}

/**
 * `text` with each name between backticks as messages call it, such as `` `packing` of rows ``. What stands between
 * square brackets is left out where the caller has no such option: `` lower the rank[, or set `rankPattern`] ``.
 */
export function nameOptions(text: string): string {
  const known = text.replaceAll(/\[([^[\]]*`([^`]+)`[^[\]]*)\]/g, (_, part: string, option: string) =>
    hasOption(option) ? part : "",
  );
  return known.replaceAll(/`([^`]+)`/g, (_, option: string) => optionName(option));
}

/** Calls options by `names` while `work` runs. One caller at a time: the command line's process has one. */
export async function withOptionNames<T>(names: OptionNames, work: () => Promise<T>): Promise<T> {
  const before = naming;
  naming = names;
  try {
    return await work();
  } finally {
    naming = before;
  }
}
