/** The values of trials as text. The command line's start loads this file, so it imports nothing of the library. */
import { optionName } from "../../arguments/option-name.js";
import type { TrialValues } from "./space.js";

/** Formats the values of a trial: `rank 8, lr 0.001`. */
export function formatValues(values: TrialValues): string {
  return Object.entries(values)
    .map(([path, value]) => `${optionName(path)} ${formatShortly(value)}`)
    .join(", ");
}

/** Formats one value. */
export function formatShortly(value: unknown): string {
  return Array.isArray(value) ? value.join("+") : String(value);
}
