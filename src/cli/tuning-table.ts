/** Formats the results of autotuning a GPU. */
import type { TuneReport } from "../native/binding.js";
import { formatSpeed } from "./terminal/format.js";

type Tuned = TuneReport["classes"][number];

/** Formats one line per problem shape, with a star at the selected variant. */
export function formatTuning({ device, name, used, file, classes }: TuneReport): string {
  const rows = classes.map((tuned) => [
    `${tuned.family} ${tuned.class}`,
    ...tuned.forms.map((form) => formatCell(form, tuned)),
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
  const storage = file === undefined ? "not stored: the user has no cache folder" : `stored in ${file}`;
  const use = used ? "" : "; not used on a software GPU, unless LOWRANK_TUNE=on";
  return [
    `${device}: ${name}`,
    "milliseconds per run; * marks the selected variant",
    ...lines,
    `${storage}${use}`,
    "",
  ].join("\n");
}

function formatCell({ form, verdict, milliseconds }: Tuned["forms"][number], { chosen }: Tuned): string {
  const found =
    milliseconds === undefined || verdict !== "right" ? DROPPED[verdict] : formatSpeed(milliseconds);
  return `${form} ${found ?? "-"}${form === chosen ? "*" : ""}`;
}

/** Text in place of a time. */
const DROPPED: Record<string, string> = {
  wrong: "rejected (wrong numbers)",
  refused: "rejected (refused)",
  slow: "too slow",
};
