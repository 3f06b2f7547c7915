/** Detects misspelled names of a row's optional fields. */
import { NearNames } from "../../arguments/near-names.js";

type Fields = Record<string, unknown>;

/** The optional fields of each kind of row, by its identifying field. */
const OPTIONAL: readonly [needed: string, names: NearNames][] = [
  ["messages", new NearNames(["tools"])],
  ["conversations", new NearNames(["system", "tools"])],
  ["instruction", new NearNames(["input", "system"])],
  ["text", new NearNames(["label"])],
];

/**
 * Rejects a row with a misspelled optional field of its kind, which would otherwise be ignored silently. Fields whose
 * value has an unsuitable type, such as an array next to `text`, are assumed to be the user's own.
 */
export function checkNames(fields: Fields, refuse: (problem: string) => never): void {
  for (const [needed, names] of OPTIONAL) {
    if (!(needed in fields)) continue;
    const near = names.findMisspelled(Object.keys(fields).filter((name) => couldMean(fields[name])));
    if (near !== undefined)
      refuse(`unknown field ${JSON.stringify(near.name)} (did you mean ${near.meant}?); rename or remove it`);
    return;
  }

  function couldMean(value: unknown): boolean {
    const isText = typeof value === "string";
    return "text" in fields ? isText || Number.isSafeInteger(value) : isText || typeof value === "object";
  }
}

/** Finds a column with a misspelled optional field name, as `checkNames` does for rows. */
export function findNearColumn(columns: readonly string[]): { name: string; meant: string } | undefined {
  const kind = OPTIONAL.find(([needed]) => columns.includes(needed));
  return kind?.[1].findMisspelled(columns);
}
