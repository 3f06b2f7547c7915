import type { ClassScores } from "../train/evaluate.js";
import { formatCount } from "./terminal/format.js";

/** Formats a confusion matrix: one line per actual class, one column per predicted class. */
export function formatConfusion({ labels, confusion }: Pick<ClassScores, "labels" | "confusion">): string[] {
  const cells = confusion.map((row) => row.map(formatCount));
  const widths = labels.map((label, i) =>
    Math.max(label.length, ...cells.map((row) => (row[i] ?? "").length)),
  );
  const head = "row \\ taken for";
  const first = Math.max(head.length, ...labels.map((label) => label.length));
  const formatLine = (name: string, values: readonly string[]): string =>
    [name.padEnd(first), ...values.map((value, i) => value.padStart(widths[i] ?? 0))].join("  ");
  return [formatLine(head, labels), ...cells.map((row, i) => formatLine(labels[i] ?? "", row))];
}
