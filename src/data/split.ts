/** Splits rows into training and held-out sets. */
import { optionName } from "../arguments/option-name.js";
import { LowrankError } from "../errors.js";
import { createSplitmix32 } from "./shuffle.js";
import type { StoredExamples } from "./store.js";

/**
 * Draws `fraction` of the rows for evaluation: at least one, leaving at least one for training. Labelled rows are
 * stratified by class, with shares rounded by the largest remainder; the last row of a class is never drawn. If the
 * total suffices, every class with two or more rows has at least one row held out, however rare it is. The draw is a
 * function of rows and seed. Both sets keep the data's order.
 *
 * Throws `ERR_OPTION` for a fraction that is not above 0 and below 1, for fewer than two rows, and where every class has
 * only one row.
 */
export function splitHeldOut(
  examples: StoredExamples,
  fraction: number,
  seed: number,
): { train: StoredExamples; held: StoredExamples } {
  if (!(fraction > 0 && fraction < 1)) {
    throw new LowrankError(
      "ERR_OPTION",
      `${optionName("evalSplit")} must be above 0 and below 1, got ${fraction}`,
    );
  }
  const { length } = examples;
  if (length < 2) {
    const what = `the data has ${length} row${length === 1 ? "" : "s"}`;
    throw new LowrankError("ERR_OPTION", `${optionName("evalSplit")}: ${what}, too few to hold any out`);
  }
  const classes = new Map<number, number[]>();
  for (let row = 0; row < length; row++) {
    const rows = classes.get(examples.classAt(row));
    if (rows === undefined) classes.set(examples.classAt(row), [row]);
    else rows.push(row);
  }
  const groups = [...classes.entries()].sort(([a], [b]) => a - b).map(([, rows]) => rows);
  const wanted = Math.min(Math.max(Math.round(length * fraction), 1), length - 1);
  const counts = computeShares(
    groups.map((rows) => rows.length),
    wanted,
  );
  if (counts.every((count) => count === 0)) {
    const what = `each of the ${groups.length} classes has one row, which is needed for training`;
    const remedy = `give more rows, or held-out rows with ${optionName("evalData")}`;
    throw new LowrankError("ERR_OPTION", `${optionName("evalSplit")}: ${what}; ${remedy}`);
  }
  const next = createRandom(seed);
  const groupOf = new Uint8Array(length);
  for (const [i, rows] of groups.entries()) {
    // The first steps of a Fisher–Yates shuffle draw without replacement.
    for (let k = 0; k < (counts[i] as number); k++) {
      const other = k + Math.floor((next() / 2 ** 32) * (rows.length - k));
      [rows[k], rows[other]] = [rows[other] as number, rows[k] as number];
      groupOf[rows[k] as number] = 1;
    }
  }
  const listPlaces = (which: number): Uint32Array => {
    const rows = new Uint32Array(groupOf.reduce((n, group) => n + (group === which ? 1 : 0), 0));
    for (let row = 0, count = 0; row < length; row++) if (groupOf[row] === which) rows[count++] = row;
    return rows;
  };
  return { train: examples.pick(listPlaces(0)), held: examples.pick(listPlaces(1)) };
}

/**
 * Returns how many rows to draw from each group, `wanted` in total, leaving at least one in each. If `wanted` allows
 * it, each group of two or more gives at least one; the rest is shared by size, with the largest remainder.
 */
function computeShares(sizes: readonly number[], wanted: number): number[] {
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const exact = sizes.map((size) => (size * wanted) / total);
  const spare = sizes.filter((size) => size > 1).length;
  const computeLeast = (size: number): number => (spare <= wanted && size > 1 ? 1 : 0);
  const counts = exact.map((share, i) => {
    const size = sizes[i] as number;
    return Math.max(Math.min(Math.floor(share), size - 1), computeLeast(size));
  });
  const sum = (): number => counts.reduce((all, count) => all + count, 0);
  const computeRemainder = (i: number): number => (exact[i] as number) - (counts[i] as number);
  const order = sizes.map((_, i) => i);
  // Rows that rare groups got beyond their share are taken from the groups furthest above theirs.
  const over = Math.max(sum() - wanted, 0);
  const spared = order.flatMap((i) => {
    const [count, share] = [counts[i] as number, exact[i] as number];
    const most = Math.min(count - computeLeast(sizes[i] as number), over);
    return Array.from({ length: Math.max(most, 0) }, (_, k) => ({ i, left: share - (count - k) }));
  });
  spared.sort((a, b) => a.left - b.left || (sizes[b.i] as number) - (sizes[a.i] as number) || a.i - b.i);
  for (const { i } of spared.slice(0, over)) counts[i] = (counts[i] as number) - 1;
  order.sort(
    (a, b) =>
      computeRemainder(b) - computeRemainder(a) || (sizes[b] as number) - (sizes[a] as number) || a - b,
  );
  let missing = wanted - sum();
  while (missing > 0) {
    const before = missing;
    for (const i of order) {
      if (missing === 0 || (counts[i] as number) >= (sizes[i] as number) - 1) continue;
      counts[i] = (counts[i] as number) + 1;
      missing--;
    }
    if (missing === before) break;
  }
  return counts;
}

/** Returns a random stream that is independent of the order of epochs. */
function createRandom(seed: number): () => number {
  const key = createSplitmix32(seed);
  const high = createSplitmix32(Math.floor(seed / 2 ** 32) ^ key());
  return createSplitmix32(high() ^ 0x5eed0fe1);
}
