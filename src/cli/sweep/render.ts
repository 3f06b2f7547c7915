/** Prints a sweep's events: as JSON, as a live line on a terminal, or as plain lines. */
import pc from "picocolors";
import type { Colors } from "picocolors/types.js";
import type { StepEvent } from "../../train/events.js";
import type {
  EventOfTrial,
  GroupEvent,
  SweepEvent,
  SweepStartEvent,
  TrialEndEvent,
} from "../../train/sweep/events.js";
import { formatShortly } from "../../train/sweep/format-values.js";
import { escapeAll, formatJsonLine } from "../terminal/escaped.js";
import { warn } from "../terminal/failure.js";
import { formatSize, formatCount, formatDuration, formatPercent, formatPlural } from "../terminal/format.js";
import { CLEAR, type Output } from "../terminal/output.js";
import { drawBar, formatDataLine } from "../terminal/progress.js";
import { nameInSpace } from "./config-file.js";
import { formatLoss, formatTrials } from "./table.js";

export type SweepRenderer = (event: SweepEvent) => void;

/** Prints one complete event per line. */
export function createJsonRenderer(output: Output): SweepRenderer {
  return (event) => void output.write(`${formatJsonLine(event)}\n`);
}

/** Milliseconds between redraws of the live line, its bar, and the share of a group between two plain lines. */
const REDRAW_MS = 100;
const BAR = 20;
const PLAIN_SHARE = 0.05;

/** Prints for people. */
export function createHumanRenderer(
  output: Output,
  now: () => number = () => performance.now(),
): SweepRenderer {
  const renderer = new HumanRenderer(output, now);
  return (event) => renderer.show(event);
}

class HumanRenderer {
  readonly #output: Output;
  readonly #readClock: () => number;
  readonly #tty: boolean;
  readonly #colors: Colors;
  /** The last step of each trial that trains. */
  readonly #steps = new Map<string, StepEvent>();
  #live = false;
  #lastDrawn = -Infinity;
  /** The share of the group at the last plain line. */
  #printed = 0;

  constructor(output: Output, now: () => number) {
    this.#output = output;
    this.#readClock = now;
    this.#tty = output.isTTY === true;
    this.#colors = pc.createColors(this.#tty && pc.isColorSupported);
  }

  show(given: SweepEvent): void {
    if ("trial" in given) return this.#showTrial(given.type === "step" ? given : escapeAll(given));
    const event = escapeAll(given);
    switch (event.type) {
      case "sweep":
        for (const line of describeSweep(event, this.#colors)) this.#print(line);
        break;
      case "group":
        this.#steps.clear();
        this.#printed = 0;
        this.#print(describeGroup(event));
        break;
      case "trial":
        this.#steps.delete(event.name);
        this.#print(describeEnd(event));
        break;
      case "progress":
        if (this.#tty) this.#draw(formatDataLine(event, this.#output.columns ?? 80, this.#colors));
        break;
      case "warning":
        this.#clear();
        warn(event.message);
        break;
      case "swept": {
        this.#print("");
        for (const line of formatTrials(event.trials)) this.#print(line);
        const [best] = event.trials;
        if (best?.state === "done")
          this.#print(`\nbest adapter ${this.#colors.bold(`${event.output}/${best.folder}`)}`);
        break;
      }
    }
  }

  #showTrial(event: EventOfTrial): void {
    switch (event.type) {
      case "step":
        this.#steps.set(event.trial, event);
        this.#showSteps();
        break;
      case "eval":
        this.#print(
          `${event.trial} ${event.step === 0 ? "before training" : `step ${event.step}`}: held-out loss ${event.loss.toFixed(4)}`,
        );
        break;
      case "warning":
        this.#clear();
        warn(`${event.trial}: ${event.message}`);
        break;
    }
  }

  /** Shows the progress of the group, by its slowest trial. */
  #showSteps(): void {
    const all = [...this.#steps.values()];
    const slowest = all.reduce((a, b) => (b.step / b.steps < a.step / a.steps ? b : a));
    const share = slowest.step / slowest.steps;
    const lowest = Math.min(...all.map(({ loss }) => loss));
    const figures = [
      `${formatCount(slowest.step)}/${formatCount(slowest.steps)}`,
      formatPlural(all.length, "trial"),
      `lowest loss ${lowest.toFixed(4)}`,
      `${formatDuration(Math.max(...all.map(({ etaSeconds }) => etaSeconds)))} left`,
      formatSize(slowest.memoryBytes),
    ];
    if (this.#tty) {
      if (this.#readClock() - this.#lastDrawn < REDRAW_MS) return;
      this.#lastDrawn = this.#readClock();
      const text = `${formatPercent(share, 0).padStart(4)} · ${figures.join(" · ")}`;
      const columns = this.#output.columns ?? 80;
      const withBar = columns > text.length + BAR + 1;
      const cut = text.length < columns ? text : text.slice(0, columns - 1);
      this.#draw(withBar ? `${this.#colors.cyan(drawBar(share, BAR))} ${cut}` : cut);
    } else if (share - this.#printed >= PLAIN_SHARE || (share === 1 && this.#printed < 1)) {
      this.#printed = share;
      this.#print(`step ${figures.join("  ")}`);
    }
  }

  #draw(line: string): void {
    this.#output.write(`${CLEAR}${line}`);
    this.#live = true;
  }

  #clear(): void {
    if (this.#live) this.#output.write(CLEAR);
    this.#live = false;
  }

  #print(line: string): void {
    this.#clear();
    this.#output.write(`${line}\n`);
  }
}

function describeSweep({ trials, finished, devices, output }: SweepStartEvent, colors: Colors): string[] {
  const paths = [...new Set(trials.flatMap(({ values }) => Object.keys(values)))];
  const rows: [string, string][] = [
    [
      "trials",
      `${formatCount(trials.length)}${finished > 0 ? `, ${formatCount(finished)} of them finished` : ""}`,
    ],
    ...paths.map((path): [string, string] => [nameInSpace(path), listValues(trials, path)]),
    ["device", devices.join(", ")],
    ["output", output],
  ];
  return rows.map(([name, value]) => `  ${colors.dim(name.padEnd(12))} ${value}`);
}

/** The most values of an option that are listed. */
const MOST_VALUES = 8;

function listValues(trials: SweepStartEvent["trials"], path: string): string {
  const values = [...new Set(trials.map((trial) => formatShortly(trial.values[path])))];
  const rest = values.length > MOST_VALUES ? ", …" : "";
  return values.slice(0, MOST_VALUES).join(", ") + rest;
}

function describeGroup({ trials, device, memory, limit }: GroupEvent): string {
  const needs = `${formatSize(memory.peakBytes + memory.mapped)} at most${limit === undefined ? "" : `, of ${formatSize(limit)}`}`;
  const which =
    trials.length === 1 ? trials[0] : `${trials.length} trials side by side (${trials.join(", ")})`;
  return `${which} on ${device}: ${needs}`;
}

function describeEnd({ name, state, steps, loss, evalLoss, error }: TrialEndEvent): string {
  if (state === "failed") return `${name} failed: ${error ?? ""}`;
  const heldOutLoss = evalLoss === null ? "" : `, held-out loss ${formatLoss(evalLoss)}`;
  const why = state === "halted" ? "halted: not among the best" : state;
  return `${name} ${why} at step ${formatCount(steps)}: loss ${formatLoss(loss)}${heldOutLoss}`;
}
