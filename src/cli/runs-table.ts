import { basename } from "node:path";
import type { RunSummary } from "../runs/summary.js";
import { formatResumeCommand } from "./finetune/resume.js";
import { formatCount, formatPlural, formatRate } from "./terminal/format.js";

const HEADINGS = ["run", "state", "model", "rank", "rate", "steps", "loss", "held-out", "best", "begun"];
/** Left-aligned columns; the others are numbers. */
const TEXTS = new Set(["run", "state", "model", "begun"]);

/** Formats runs as a table, one line per run. */
export function formatRuns(runs: readonly RunSummary[]): string {
  const rows = [HEADINGS, ...runs.map(formatCells)];
  const widths = HEADINGS.map((_, i) => Math.max(...rows.map((row) => (row[i] as string).length)));
  const lines = rows.map((row) =>
    row
      .map((cell, i) => {
        const width = widths[i] as number;
        return TEXTS.has(HEADINGS[i] as string) ? cell.padEnd(width) : cell.padStart(width);
      })
      .join("  ")
      .trimEnd(),
  );
  const failures = runs
    .filter(({ message }) => message !== null)
    .map(({ name, message }) => `${name}: ${message}`);
  const gone = runs
    .filter(({ state }) => state === "interrupted")
    .map(({ name, folder, checkpoint }) => {
      const onward =
        checkpoint === null
          ? "it had saved no checkpoint"
          : `continue from step ${checkpoint} with ${formatResumeCommand(folder)}`;
      return `${name}: the run's process is gone; ${onward}`;
    });
  const damaged = runs
    .filter((run) => run.damaged > 0)
    .map((run) => `${run.name}: ignored ${formatPlural(run.damaged, "unreadable line")} of events.jsonl`);
  return `${[...lines, ...failures, ...gone, ...damaged].join("\n")}\n`;
}

function formatCells(run: RunSummary): string[] {
  const loss = (value: number | null): string => (value === null ? "–" : value.toFixed(4));
  return [
    run.name,
    run.state,
    run.model === null || run.model === "" ? "–" : basename(run.model),
    run.rank === null ? "–" : String(run.rank),
    run.learningRate === null ? "–" : formatRate(run.learningRate),
    `${formatCount(run.step)}/${run.steps === null ? "–" : formatCount(run.steps)}`,
    loss(run.loss),
    loss(run.evalLoss),
    loss(run.bestEvalLoss),
    formatLocalTime(run.started),
  ];
}

/** Formats a time in the local time zone: 2026-11-27 12:43. */
function formatLocalTime(milliseconds: number): string {
  const date = new Date(milliseconds);
  const padTwo = (value: number): string => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}-${padTwo(date.getMonth() + 1)}-${padTwo(date.getDate())}`;
  return `${day} ${padTwo(date.getHours())}:${padTwo(date.getMinutes())}`;
}
