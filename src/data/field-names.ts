/** Misspelled names of a row's optional fields. */
import { NearNames } from "../near-names.js";

type Fields = Record<string, unknown>;

/** The optional fields of each kind of row, by a field that the kind has. */
const OPTIONAL: readonly [needed: string, names: NearNames][] = [
  ["messages", new NearNames(["tools"])],
  ["conversations", new NearNames(["system", "tools"])],
  ["instruction", new NearNames(["input", "system"])],
  ["text", new NearNames(["label"])],
];

/**
 * Refuses a row with a field that is almost an optional one of its kind: it would be ignored, and the row would mean
 * another thing. A field whose value cannot be meant, such as an array next to `text`, is the user's own.
 */
export function checkNames(fields: Fields, refuse: (problem: string) => never): void {
  for (const [needed, names] of OPTIONAL) {
    if (!(needed in fields)) continue;
    const near = names.in(Object.keys(fields).filter((name) => couldMean(fields[name])));
    if (near !== undefined)
      refuse(`unknown field ${JSON.stringify(near.name)} (did you mean ${near.meant}?); rename or remove it`);
    return;
  }

  function couldMean(value: unknown): boolean {
    const isText = typeof value === "string";
    return "text" in fields ? isText || Number.isSafeInteger(value) : isText || typeof value === "object";
  }
}

/**
 * Finds a column that is almost an optional field of the rows that the columns make, as `checkNames` does for rows.
 */
export function nearColumn(columns: readonly string[]): { name: string; meant: string } | undefined {
  const kind = OPTIONAL.find(([needed]) => columns.includes(needed));
  return kind?.[1].in(columns);
}
