/** Prints a run's events, except its profile: as JSON, as a live line on a terminal, or as plain lines. */
import { posix } from "node:path";
import pc from "picocolors";
import type { EvalEvent, StepEvent, TrainEvent } from "../../train/events.js";
import { escapeAll, formatJsonLine } from "../terminal/escaped.js";
import { formatDuration } from "../terminal/format.js";
import { warn } from "../terminal/failure.js";
import {
  formatDataLine,
  describeDownload,
  formatEnd,
  formatEval,
  formatLiveLine,
  formatPlainLine,
  isLogged,
} from "../terminal/progress.js";
import { CLEAR, type Output } from "../terminal/output.js";
import { summarise } from "./summary.js";

export type Renderer = (event: TrainEvent) => void;

/** Prints one complete event per line. */
export function createJsonRenderer(output: Output): Renderer {
  return (event) => {
    if (event.type !== "profile") output.write(`${formatJsonLine(event)}\n`);
  };
}

/** Milliseconds between redraws of the live line. */
const REDRAW_MS = 100;

export function createHumanRenderer(output: Output, now: () => number = () => performance.now()): Renderer {
  const tty = output.isTTY === true;
  const colors = pc.createColors(tty && pc.isColorSupported);
  let first: EvalEvent | undefined;
  let last: EvalEvent | undefined;
  let live = false;
  let lastDrawn = -Infinity;
  /** The model whose download has been announced. */
  let fetched: string | undefined;

  const clear = (): void => {
    if (live) output.write(CLEAR);
    live = false;
  };
  const print = (line: string): void => {
    clear();
    output.write(`${line}\n`);
  };
  const step = (event: StepEvent): void => {
    if (!tty) {
      if (isLogged(event)) print(formatPlainLine(event));
      return;
    }
    if (now() - lastDrawn < REDRAW_MS && event.step < event.steps) return;
    lastDrawn = now();
    output.write(`${CLEAR}${formatLiveLine(event, output.columns ?? 80, colors)}`);
    live = true;
  };

  return (given) => {
    // Names of files, models and classes are not trusted.
    const event = given.type === "step" ? given : escapeAll(given);
    switch (event.type) {
      case "progress":
        if (!tty) {
          if (event.stage === "download" && fetched !== posix.dirname(event.file))
            print(describeDownload((fetched = posix.dirname(event.file)), event.bytes ?? 0));
          break;
        }
        output.write(`${CLEAR}${formatDataLine(event, output.columns ?? 80, colors)}`);
        live = true;
        break;
      case "start":
        for (const line of summarise(event, colors)) print(line);
        break;
      case "step":
        step(event);
        break;
      case "eval":
        if (event.step === 0) first = event;
        last = event;
        print(formatEval(event));
        break;
      case "checkpoint":
        print(colors.dim(`step ${event.step}: saved ${event.path}`));
        break;
      case "paused":
        print(`paused after step ${event.step}`);
        break;
      case "resumed":
        print(`resumed at step ${event.step} after ${formatDuration(event.seconds)}`);
        break;
      case "warning":
        clear();
        warn(event.message);
        break;
      case "dashboard":
        print(`dashboard: ${colors.bold(event.url)}`);
        break;
      case "profile":
        clear();
        break;
      case "end":
        for (const line of formatEnd(event, first, last, colors)) print(line);
        break;
    }
  };
}
