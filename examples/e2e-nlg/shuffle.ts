/** Shuffles rows each epoch, deterministically by seed and epoch. */
import { createHash } from "node:crypto";

export function shuffled<T>(rows: readonly T[], seed: number, epoch: number): T[] {
  const at = (row: number): string => createHash("sha256").update(`${seed}:${epoch}:${row}`).digest("hex");
  return rows
    .map((value, row) => ({ value, at: at(row) }))
    .sort((a, b) => (a.at < b.at ? -1 : 1))
    .map(({ value }) => value);
}
