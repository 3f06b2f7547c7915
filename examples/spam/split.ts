/** Splits rows into a training set and a test set. */
import { createHash } from "node:crypto";

export interface Row {
  text: string;
  label: string;
}

const hash = (text: string): string => createHash("sha256").update(text).digest("hex");

/**
 * Holds out a fraction of the rows of each label. Rows with equal texts stay together; the selection depends only on the
 * texts and the seed, not on the order of rows.
 */
export function split(rows: readonly Row[], share: number, seed: number): { train: Row[]; test: Row[] } {
  const byText = new Map<string, Row[]>();
  for (const row of rows) byText.set(row.text, [...(byText.get(row.text) ?? []), row]);
  const groups = [...byText.values()]
    .map((group) => ({ group, at: hash(`${seed}:${group[0]?.text}`) }))
    .sort((a, b) => (a.at < b.at ? -1 : 1));
  const wanted = new Map<string, number>();
  for (const { label } of rows) wanted.set(label, (wanted.get(label) ?? 0) + share);
  const [train, test]: [Row[], Row[]] = [[], []];
  for (const { group } of groups) {
    const label = group.map((row) => row.label).sort()[0] ?? "";
    const left = Math.round(wanted.get(label) ?? 0);
    // A group that exceeds the remaining rows is used for training.
    const held = group.length <= left;
    (held ? test : train).push(...group);
    if (held) wanted.set(label, (wanted.get(label) ?? 0) - group.length);
  }
  return { train, test };
}
