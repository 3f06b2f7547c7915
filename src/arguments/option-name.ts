/** Names options in messages: as in the library, or by the flag of the running command. */

/** Maps an option of the library to its name in messages; undefined if the command has no such option. */
export type OptionNames = (option: string) => string | undefined;

const AS_IN_THE_LIBRARY: OptionNames = (option) => option;
let naming = AS_IN_THE_LIBRARY;

/** Returns the name of an option in messages. `option` is its library name, such as `batchSize` or `optimizer.lr`. */
export function optionName(option: string): string {
  return naming(option) ?? option;
}

/** Whether the caller has this option: any option of the library, or a flag of the running command. */
export function hasOption(option: string): boolean {
  return naming(option) !== undefined;
}

/** Formats an option with its value: `batchSize 4`; a boolean flag has only its name. */
export function optionSetting(option: string, value: unknown): string {
  const name = optionName(option);
  return value === true && name !== option ? name : `${name} ${String(value)}`;
}

/**
 * Replaces each name in backticks by its name in messages, as in `` `packing` of rows ``. Text in square brackets is
 * dropped if the caller lacks the option in it: `` lower the rank[, or set `rankPattern`] ``.
 */
export function nameOptions(text: string): string {
  const known = text.replaceAll(/\[([^[\]]*`([^`]+)`[^[\]]*)\]/g, (_, part: string, option: string) =>
    hasOption(option) ? part : "",
  );
  return known.replaceAll(/`([^`]+)`/g, (_, option: string) => optionName(option));
}

/** Sets the names of options while `work` runs. Supports one caller per process, the command line. */
export async function runWithOptionNames<T>(names: OptionNames, work: () => Promise<T>): Promise<T> {
  const before = naming;
  naming = names;
  try {
    return await work();
  } finally {
    naming = before;
  }
}
