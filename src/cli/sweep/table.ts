/** The table of a sweep's trials. */
import type { TrialSummary } from "../../train/sweep/events.js";
import { formatShortly } from "../../train/sweep/format-values.js";
import { nameInSpace } from "./config-file.js";

/** Returns the lines of a table with one line per trial, in the given order. */
export function formatTrials(trials: readonly TrialSummary[]): string[] {
  const paths = [...new Set(trials.flatMap(({ values }) => Object.keys(values)))];
  const hasEvaluation = trials.some(({ evalLoss }) => evalLoss !== null);
  const head = [
    "trial",
    ...paths.map(nameInSpace),
    "steps",
    "loss",
    ...(hasEvaluation ? ["held-out loss"] : []),
    "state",
  ];
  const rows = trials.map((trial) => [
    trial.name,
    ...paths.map((path) => (path in trial.values ? formatShortly(trial.values[path]) : "")),
    String(trial.steps),
    formatLoss(hasEvaluation ? trial.loss : trial.recentLoss),
    ...(hasEvaluation ? [formatLoss(trial.evalLoss)] : []),
    trial.state,
  ]);
  const widths = head.map((name, i) =>
    Math.max(name.length, ...rows.map((row) => (row[i] as string).length)),
  );
  return [head, ...rows].map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] as number))
      .join("  ")
      .trimEnd(),
  );
}

export function formatLoss(loss: number | null): string {
  return loss === null ? "-" : loss.toFixed(4);
}
