/** Rows cut into those to train on and those to test with. */
import { createHash } from "node:crypto";

export interface Row {
  text: string;
  label: string;
}

const hash = (text: string): string => createHash("sha256").update(text).digest("hex");

/**
 * Holds out a share of the rows of each label. Rows of one text stay together; which texts are held out depends on the
 * seed and on nothing else, not on the rows' order.
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
    // A text that would hold out too many goes to the others.
    const held = group.length <= left;
    (held ? test : train).push(...group);
    if (held) wanted.set(label, (wanted.get(label) ?? 0) - group.length);
  }
  return { train, test };
}
