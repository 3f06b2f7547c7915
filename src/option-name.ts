/** How messages call an option: as the library does, or by the flag of the command that runs. */

let naming: (option: string) => string = (option) => option;

/** An option as messages call it. `option` is its name in the library, such as `batchSize` or `optimizer.lr`. */
export function optionName(option: string): string {
  return naming(option);
}

/** Calls options by `names` while `work` runs. One caller at a time: the command line's process has one. */
export async function withOptionNames<T>(
  names: (option: string) => string,
  work: () => Promise<T>,
): Promise<T> {
  const before = naming;
  naming = names;
  try {
    return await work();
  } finally {
    naming = before;
  }
}

/** `text` with each name between backticks as messages call it, such as `` `packing` of rows ``. */
export function nameOptions(text: string): string {
  return text.replaceAll(/`([^`]+)`/g, (_, option: string) => optionName(option));
}
