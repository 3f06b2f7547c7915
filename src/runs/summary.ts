/** Summarises a run from its events.jsonl. */
import { readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";

import {
  type EventsHeader,
  readLines,
  readHeader,
  type RecordedEvent,
  type RecordedLine,
} from "./events-file.js";
import { isRunning, type ProcessIdentity } from "./process-identity.js";

/**
 * The state of a run: `running`; `paused` between two steps; `ended` at its last step or by `patience`; `stopped`, with a
 * checkpoint; `failed`, with an error; `interrupted`, if its process ended without recording an end; `unknown`, if its
 * process is on another machine.
 */
export type RunState = "running" | "paused" | "ended" | "stopped" | "failed" | "interrupted" | "unknown";

/** The summary of a run. Figures that are not recorded yet are null. */
export interface RunSummary {
  /** The path of its folder, relative to the folder that was searched. */
  name: string;
  /** Its output folder. */
  folder: string;
  /** Its events.jsonl. */
  file: string;
  /** The state of the run. */
  state: RunState;
  /** The folder or the name of the model. */
  model: string | null;
  /** Completed optimizer steps. */
  step: number;
  /** Optimizer steps of the whole run. */
  steps: number | null;
  /** The loss of the last step. */
  loss: number | null;
  /** The loss of the last evaluation. */
  evalLoss: number | null;
  /** The lowest held-out loss since training began. */
  bestEvalLoss: number | null;
  /** The peak learning rate, which the schedule multiplies. */
  learningRate: number | null;
  /** The adapter's rank. */
  rank: number | null;
  /** The time of the start, in milliseconds since 1970. */
  started: number;
  /** The time of the last recorded event, in milliseconds since 1970. */
  updated: number;
  /** The error message of a failed run. */
  message: string | null;
  /** The step of the newest checkpoint; null without one. */
  checkpoint: number | null;
  /** The number of unreadable lines. */
  damaged: number;
}

function readNumber(event: RecordedEvent | undefined, field: string): number | null {
  const value = event?.[field];
  return typeof value === "number" ? value : null;
}

function readText(event: RecordedEvent | undefined, field: string): string | null {
  const value = event?.[field];
  return typeof value === "string" ? value : null;
}

/** Reads a run's file; each call reads the lines that were added since the last. */
export class RunReader {
  readonly file: string;
  readonly #name: string;
  #header: string | undefined;
  #offset = 0;
  #start: RecordedEvent | undefined;
  #started: number | undefined;
  #step: RecordedLine | undefined;
  #last: RecordedEvent | undefined;
  #evalLoss: number | null = null;
  #best: number | null = null;
  #checkpoint: number | null = null;
  #damaged = 0;

  /** `name` is the run's name in the summary. */
  constructor(file: string, name: string) {
    this.file = file;
    this.#name = name;
  }

  /** Returns undefined if the file no longer exists. Throws as `readHeader` does. */
  async read(): Promise<RunSummary | undefined> {
    const header = await readHeader(this.file);
    if (header === undefined) return undefined;
    const size = await stat(this.file).then(
      (found) => found.size,
      () => 0,
    );
    if (identifyFile(header) !== this.#header || size < this.#offset) this.#reset(header);
    for await (const line of readLines(this.file, this.#offset)) this.#take(line);
    return this.#summarise(header, await deriveState(dirname(this.file)));
  }

  #reset(header: EventsHeader): void {
    this.#header = identifyFile(header);
    this.#offset = 0;
    this.#start = this.#started = this.#step = this.#last = undefined;
    this.#evalLoss = this.#best = this.#checkpoint = null;
    this.#damaged = 0;
  }

  #take(line: RecordedLine): void {
    this.#offset += line.length;
    if (line.isStep) {
      this.#step = line;
      return;
    }
    const { event } = line;
    if (event === undefined) {
      this.#damaged++;
      return;
    }
    if (event.type === "start") {
      this.#start = event;
      this.#started ??= event.at;
    }
    if (event.type === "checkpoint") this.#checkpoint = readNumber(event, "step");
    if (event.type === "eval") {
      this.#evalLoss = readNumber(event, "loss");
      const trained = (readNumber(event, "step") ?? 0) > 0;
      if (trained && this.#evalLoss !== null) this.#best = Math.min(this.#best ?? Infinity, this.#evalLoss);
    }
    this.#last = event;
  }

  #summarise(header: EventsHeader, held: RunState): RunSummary {
    const [start, last, step] = [this.#start, this.#last, this.#step?.event];
    const ended: Partial<Record<string, RunState>> = {
      end: last?.["stopped"] === true ? "stopped" : "ended",
      failed: "failed",
    };
    const type = last?.type ?? "";
    const going = held === "running" && type === "paused" ? "paused" : held;
    const best = last?.["best"];
    return {
      name: this.#name,
      folder: dirname(this.file),
      file: this.file,
      state: ended[type] ?? going,
      model: readText(start, "model"),
      step: readNumber(step, "step") ?? readNumber(start, "resumedFrom") ?? 0,
      steps: readNumber(start, "steps"),
      loss: readNumber(step, "loss"),
      evalLoss: this.#evalLoss,
      bestEvalLoss:
        typeof best === "object" ? readNumber(best as unknown as RecordedEvent, "loss") : this.#best,
      learningRate: readNumber(start, "learningRate"),
      rank: readNumber(start, "rank"),
      started: this.#started ?? header.at,
      updated: Math.max(header.at, last?.at ?? 0, step?.at ?? 0),
      message: type === "failed" ? readText(last, "message") : null,
      checkpoint: this.#checkpoint,
      damaged: this.#damaged,
    };
  }
}

/** Returns a key that distinguishes a file from a rewritten one at the same path. */
export function identifyFile({ line, at }: EventsHeader): string {
  return `${line.at(-1)?.lineage ?? ""}-${at}`;
}

/** Derives the state of a run without a recorded end from the lock of its output folder. */
async function deriveState(folder: string): Promise<RunState> {
  const text = await readFile(join(folder, "run.lock"), "utf8").catch(() => undefined);
  if (text === undefined) return "interrupted";
  try {
    const running = isRunning(JSON.parse(text) as ProcessIdentity);
    return running === undefined ? "unknown" : running ? "running" : "interrupted";
  } catch {
    return "unknown";
  }
}
