/** Formats the results of autotuning a GPU. */
import type { TuneReport } from "../native.js";
import { speed } from "./format.js";

type Tuned = TuneReport["classes"][number];

/** Formats one line per problem shape, with a star at the selected variant. */
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

/** Text in place of a time. */
const DROPPED: Record<string, string> = {
  wrong: "dropped (other numbers)",
  refused: "dropped (refused)",
  slow: "too slow",
};
