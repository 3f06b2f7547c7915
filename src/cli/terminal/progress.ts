import { basename } from "node:path";
import type { Colors } from "picocolors/types.js";
import type { EndEvent, EvalEvent, StepEvent, ProgressEvent } from "../../train/events.js";
import type { ClassScores } from "../../train/evaluate.js";
import { formatSize, formatDuration, formatCount, formatPercent, formatRate, formatSpeed } from "./format.js";

/** Returns the metrics of a step, most important first. */
function formatFigures(step: StepEvent): string[] {
  return [
    `loss ${step.loss.toFixed(4)}`,
    `${formatDuration(step.etaSeconds)} left`,
    `${formatSpeed(step.tokensPerSecond)} tok/s`,
    `lr ${formatRate(step.learningRate)}`,
    formatSize(step.memoryBytes),
    `norm ${step.gradNorm.toPrecision(3)}`,
  ];
}

/** Draws a bar of `width` cells with a resolution of an eighth. */
export function drawBar(share: number, width: number): string {
  const eighths = Math.round(Math.min(Math.max(share, 0), 1) * width * 8);
  const full = Math.floor(eighths / 8);
  const part = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8] ?? "";
  return "█".repeat(full) + part + "░".repeat(width - full - (part === "" ? 0 : 1));
}

const BAR = 20;

/** Formats one line for `columns`: bar, percentage, step, then as many metrics as fit. */
export function formatLiveLine(step: StepEvent, columns: number, colors: Colors): string {
  const share = step.step / step.steps;
  const lead = `${formatPercent(share, 0).padStart(4)} · ${formatCount(step.step)}/${formatCount(step.steps)}`;
  const withBar = columns >= lead.length + BAR + 20;
  let used = lead.length + (withBar ? BAR + 1 : 0);
  let line = withBar ? `${colors.cyan(drawBar(share, BAR))} ${lead}` : lead;
  for (const figure of formatFigures(step)) {
    if (used + figure.length + 3 > columns - 1) break;
    line += `${colors.dim(" · ")}${figure}`;
    used += figure.length + 3;
  }
  return line;
}

/** Announces a download from the hub. */
export function describeDownload(model: string, size: number): string {
  return `downloading ${model}, ${formatSize(size)}`;
}

const STAGES = { read: "reading", tokenise: "tokenising", download: "downloading" } as const;

/** Formats the progress of reading, tokenising or downloading; for a stream of unknown size, the bytes so far. */
export function formatDataLine(
  { stage, file, bytesRead, bytes: size, tokens }: ProgressEvent,
  columns: number,
  colors: Colors,
): string {
  const share = size === null || size === 0 ? undefined : bytesRead / size;
  const what = STAGES[stage];
  const figures = [
    share === undefined
      ? formatSize(bytesRead)
      : `${formatPercent(share, 0).padStart(4)} of ${formatSize(size ?? 0)}`,
    ...(tokens > 0 ? [`${formatCount(tokens)} tokens`] : []),
  ];
  const text = `${what} ${basename(file)} · ${figures.join(" · ")}`;
  const cut = text.length < columns ? text : text.slice(0, columns - 1);
  const withBar = share !== undefined && columns > text.length + BAR + 1;
  return withBar ? `${colors.cyan(drawBar(share, BAR))} ${cut}` : cut;
}

/** Formats a step as a log line. */
export function formatPlainLine(step: StepEvent): string {
  return [`step ${step.step}/${step.steps}`, ...formatFigures(step)].join("  ");
}

/** Selects about a hundred steps per run: the first, the last, and regular ones between. */
export function isLogged(step: StepEvent): boolean {
  const every = Math.max(1, Math.ceil(step.steps / 100));
  return step.step === 1 || step.step === step.steps || step.step % every < step.merged;
}

export function formatEval(event: EvalEvent): string {
  const when = event.step === 0 ? "before training" : `step ${event.step}`;
  const { loss, perplexity, classes } = event;
  const rest =
    classes === undefined
      ? `perplexity ${perplexity.toPrecision(4)}`
      : `accuracy ${formatPercent(classes.accuracy)}, macro-F1 ${classes.macroF1.toFixed(4)}${describeUnmeasured(classes, "held-out rows")}`;
  return `${when}: held-out loss ${loss.toFixed(4)}, ${rest}`;
}

/** Lists the classes without rows, which a score does not cover; "" if there are none. */
export function describeUnmeasured({ withoutRows }: Pick<ClassScores, "withoutRows">, rows: string): string {
  if (withoutRows.length === 0) return "";
  const rest = withoutRows.length - MOST_NAMES;
  const names =
    withoutRows.slice(0, MOST_NAMES).join(", ") + (rest > 0 ? ` and ${formatCount(rest)} more` : "");
  return ` (no ${rows} of ${names})`;
}

const MOST_NAMES = 8;

/** Formats the last lines of a run. `first` is the evaluation before the first step, `last` the newest. */
export function formatEnd(
  end: EndEvent,
  first: EvalEvent | undefined,
  last: EvalEvent | undefined,
  colors: Colors,
): string[] {
  const loss = end.loss === null ? "" : `: loss ${end.loss.toFixed(4)}`;
  const lines = [
    `${end.stopped ? "stopped" : "done"} at step ${formatCount(end.steps)} after ${formatDuration(end.seconds)}${loss}`,
  ];
  // A run stopped early may only have the evaluation before its first step.
  if (end.evalLoss !== null && last?.step !== 0) {
    const change =
      first === undefined
        ? ""
        : ` (${first.loss.toFixed(4)} before, ${formatSigned(end.evalLoss / first.loss - 1)})`;
    lines.push(`held-out loss ${end.evalLoss.toFixed(4)}${change}`);
  }
  if (end.best !== undefined) {
    const { step, loss, early } = end.best;
    const why = early ? ", since when it hasn't fallen" : "";
    lines.push(
      `best held-out loss ${loss.toFixed(4)} at step ${formatCount(step)}${why}: the adapter is that step's`,
    );
  }
  if (end.adapter !== "") lines.push(`adapter ${colors.bold(end.adapter)}`);
  return lines;
}

function formatSigned(share: number): string {
  return `${share > 0 ? "+" : share < 0 ? "−" : ""}${formatPercent(Math.abs(share), 1)}`;
}
