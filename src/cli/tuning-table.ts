/** What was found of the forms of a GPU's kernels, as people read it. */
import type { TuneReport } from "../native.js";
import { speed } from "./format.js";

type Tuned = TuneReport["classes"][number];

/** A line for each class of shapes, the form that is used marked by a star. */
export function tuningTable({ device, name, used, file, classes }: TuneReport): string {
  const rows = classes.map((one) => [
    `${one.family} ${one.class}`,
    ...one.forms.map((form) => cell(form, one)),
  ]);
  const widths: number[] = [];
  for (const row of rows)
    for (const [i, text] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, text.length);
  const lines = rows.map((row) =>
    row
      .map((text, i) => text.padEnd(widths[i] as number))
      .join("  ")
      .trimEnd(),
  );
  const kept = file === undefined ? "kept nowhere: the user has no cache folder" : `kept in ${file}`;
  const use = used ? "" : "; runs on a GPU in software do not use it, unless LOWRANK_TUNE=on";
  return [`${device}: ${name}`, "milliseconds a run; * is used", ...lines, `${kept}${use}`, ""].join("\n");
}

function cell({ form, verdict, milliseconds }: Tuned["forms"][number], { chosen }: Tuned): string {
  const found = milliseconds === undefined || verdict !== "right" ? DROPPED[verdict] : speed(milliseconds);
  return `${form} ${found ?? "-"}${form === chosen ? "*" : ""}`;
}

/** What stands in place of a time. */
const DROPPED: Record<string, string> = {
  wrong: "dropped (other numbers)",
  refused: "dropped (refused)",
  slow: "too slow",
};
