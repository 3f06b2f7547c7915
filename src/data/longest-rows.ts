/** The rows with the most characters, from which the largest batches of a run are estimated. */

/** The number of rows. */
const ROWS = 64;

/** Collects the longest rows of several sources. */
export class LongestRows<S> {
  #found: { source: S; row: object; size: number }[] = [];

  add(source: S, rows: readonly object[]): void {
    const least = this.#found[ROWS - 1]?.size ?? -1;
    for (const row of rows) {
      const size = countCharacters(row);
      if (size > least) this.#found.push({ source, row, size });
    }
    this.#found = this.#found.sort((a, b) => b.size - a.size).slice(0, ROWS);
  }

  /** Returns the rows of each source, the longest first. */
  groupBySource(): Map<S, object[]> {
    const groups = new Map<S, object[]>();
    for (const { source, row } of this.#found) groups.set(source, [...(groups.get(source) ?? []), row]);
    return groups;
  }
}

/** Returns the number of characters in all texts of a row. */
function countCharacters(value: unknown): number {
  if (typeof value === "string") return value.length;
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return 0;
  return Object.values(value).reduce((sum: number, part) => sum + countCharacters(part), 0);
}
