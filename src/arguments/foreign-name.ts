/** Finds the option that has another name in another library. */
import { FOREIGN_NAMES, type ForeignName } from "./foreign-names.js";
import { foldName } from "./suggest.js";

/** Returns the entry of a name whose option satisfies `has`; undefined if there is none. */
export function findForeignName(name: string, has: (option: string) => boolean): ForeignName | undefined {
  const folded = foldName(name);
  return FOREIGN_NAMES.find(
    ({ names, option }) => names.some((candidate) => foldName(candidate) === folded) && has(option),
  );
}

/** Returns the part of an error that names the option: `use --lr <rate>, the peak learning rate, such as --lr 2e-4`. */
export function adviseOption(option: string, { unit }: ForeignName, example: string | undefined): string {
  return `use ${option}, ${unit}${example === undefined ? "" : `, such as ${example}`}`;
}

/**
 * Returns the advice for an unknown option of a call, whose options have these names or paths, such as `optimizer.lr`;
 * undefined if no library has such a name.
 */
export function adviseLibraryOption(name: string, known: readonly string[]): string | undefined {
  const find = (option: string): string | undefined => {
    const last = option.slice(option.lastIndexOf(".") + 1);
    return [option, last].find((candidate) => known.includes(candidate));
  };
  const found = findForeignName(name, (option) => find(option) !== undefined && find(option) !== name);
  return found === undefined ? undefined : adviseOption(find(found.option) as string, found, undefined);
}
