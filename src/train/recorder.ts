/** Writes the events of a run into its folder while it runs. */
import { existsSync } from "node:fs";
import { readdir, rename, rm, rmdir } from "node:fs/promises";
import { join, resolve } from "node:path";

import { LowrankError } from "../errors.js";
import { AppendedFile } from "../runs/appended-file.js";
import {
  formatEvent,
  EVENTS,
  type EventsHeader,
  formatHeader,
  LEFT_EVENTS,
  readLines,
  readHeader,
  type RecordedEvent,
} from "../runs/events-file.js";
import { checkOwnLog, MetricsLog, removeLogs } from "../runs/metrics-log.js";
import type { LogFormat } from "../runs/metrics.js";
import { TensorboardFormat } from "../runs/tfevents.js";
import type { TrainEvent } from "./events.js";
import { readLineage, isWithinLine, type Line } from "./output/lineage.js";

/** The number of events that are kept before the folder belongs to the run. */
const EARLY = 256;

/** Events of no lasting value, and the event with an address that grants access to the dashboard. */
const NOT_RECORDED = new Set(["progress", "profile", "dashboard"]);

/** The part of a run before the checkpoint that is resumed. */
export interface PastRun {
  /** The folder that contains the checkpoint. */
  home: string;
  lineage: string;
  step: number;
}

/** Throws `ERR_OUTPUT_EXISTS` if a file that no run wrote has the name of a file that the run will write. */
export async function checkOwnEvents(folder: string, log: LogFormat | undefined): Promise<void> {
  await checkOwnLog(folder, log);
  await readHeader(join(folder, EVENTS)).catch((cause: unknown) => {
    const what = `${(cause as Error).message}; move it away, or choose another folder`;
    throw new LowrankError("ERR_OUTPUT_EXISTS", what, { cause });
  });
}

/** Writes a run's events from when the folder belongs to the run. */
export class RunRecorder {
  readonly #warn: (message: string) => void;
  #early: Buffer[] | undefined = [];
  #file: AppendedFile | undefined;
  #log: MetricsLog | undefined;
  #folder = "";
  #isNewRun = true;
  /** Whether the folder contained nothing of this run before. */
  #new = true;
  #steps = 0;
  #hasSaved = false;

  /** Calls `warn` once if the file cannot be written; the run then continues unrecorded. */
  constructor(warn: (message: string) => void) {
    this.#warn = warn;
  }

  /** The path of the events file; undefined until the folder belongs to the run. */
  get path(): string | undefined {
    return this.#file?.path;
  }

  record(event: TrainEvent | { type: "failed"; message: string; code?: string | undefined }): void {
    if (NOT_RECORDED.has(event.type)) return;
    if (event.type === "step") this.#steps++;
    const time = Date.now();
    this.#log?.add({ ...event, at: time });
    const line = formatEvent(event, time);
    if (this.#file !== undefined) this.#file.append(line);
    else if (this.#early !== undefined && this.#early.length < EARLY) this.#early.push(line);
  }

  /**
   * Creates the events file in `folder`. With `staged` it stays a staging file until this run has saved something, so
   * that an earlier run's file is kept until then.
   */
  async begin(
    folder: string,
    {
      line,
      before,
      staged,
      log,
    }: { line: Line; before: PastRun | undefined; staged: boolean; log: LogFormat | undefined },
  ): Promise<void> {
    const place = join(folder, EVENTS);
    this.#folder = folder;
    this.#isNewRun = before === undefined;
    this.#new = before === undefined || resolve(before.home) !== resolve(folder);
    const file = new AppendedFile(place, this.#makeFailureHandler(place));
    const past = before && (await findPastEvents(before));
    await file.begin(async (write) => {
      await write(formatHeader(line));
      if (past === undefined) return;
      for await (const bytes of readKeptLines(past.file, (before as PastRun).step)) await write(bytes);
    });
    if (log !== undefined) {
      this.#log = new MetricsLog(folder, log, this.#makeFailureHandler(log));
      await this.#log.begin(readEvents(file.path));
    }
    await this.#keepLeft(line);
    if (!staged) {
      await file.moveIntoPlace();
      await this.#log?.moveIntoPlace();
      if (this.#log !== undefined) await removeLogs(folder, this.#log.path);
    }
    for (const bytes of this.#early ?? []) file.append(bytes);
    this.#early = undefined;
    this.#file = file;
  }

  #makeFailureHandler(what: string): (error: NodeJS.ErrnoException) => void {
    return ({ code, message }) => {
      const why = `${what}: cannot be written (${code ?? message})`;
      this.#warn(`${why}; the run continues, but is no longer recorded there`);
    };
  }

  /** Renames the events file of a branch that this run leaves behind, because its checkpoints are kept too. */
  async #keepLeft(line: Line): Promise<void> {
    if (this.#isNewRun) return;
    const path = join(this.#folder, EVENTS);
    const header = await readHeader(path).catch(() => undefined);
    if (header === undefined || readLineage(header.line) === readLineage(line)) return;
    await rename(path, join(this.#folder, `events-${readLineage(header.line)}.jsonl`)).catch(() => {});
  }

  /** Waits until all recorded events are in the file. */
  async flush(): Promise<void> {
    await this.#file?.flush();
  }

  /** Called when the run has saved something: removes the events files of earlier runs. */
  async recordSave(): Promise<void> {
    const first = !this.#hasSaved;
    this.#hasSaved = true;
    await this.#file?.moveIntoPlace();
    await this.#log?.moveIntoPlace();
    if (!first || !this.#isNewRun) return;
    await removeLogs(this.#folder, this.#log?.path);
    for (const name of await readdir(this.#folder).catch(() => []))
      if (LEFT_EVENTS.test(name)) await rm(join(this.#folder, name), { force: true });
  }

  /**
   * Closes the file. Removes it if it is still a staging file, or if the run saved nothing in a new folder and was
   * abandoned or made no step.
   */
  async close({ abandoned }: { abandoned: boolean }): Promise<void> {
    const file = this.#file;
    if (file === undefined) return;
    const staged = file.path !== join(this.#folder, EVENTS);
    const worthless = !this.#hasSaved && this.#new && (abandoned || this.#steps === 0);
    for (const each of [file, this.#log]) await (staged || worthless ? each?.discard() : each?.close());
    if (staged || worthless) await rmdir(join(this.#folder, TensorboardFormat.folder)).catch(() => {});
  }
}

/** The recorder of a rank that records nothing. */
export class SilentRecorder extends RunRecorder {
  constructor() {
    super(() => {});
  }

  override record(): void {}
  override async begin(): Promise<void> {}
  override async flush(): Promise<void> {}
  override async recordSave(): Promise<void> {}
  override async close(): Promise<void> {}
}

/** Finds the events file that covers a run up to a checkpoint: the folder's own, or that left behind by a branch. */
async function findPastEvents({ home, lineage, step }: PastRun): Promise<{ file: string } | undefined> {
  const left = (await readdir(home).catch(() => [])).filter((name) => LEFT_EVENTS.test(name));
  for (const name of [EVENTS, ...left]) {
    const file = join(home, name);
    if (!existsSync(file)) continue;
    const header: EventsHeader | undefined = await readHeader(file).catch(() => undefined);
    if (header !== undefined && isWithinLine(header.line, { lineage, step })) return { file };
  }
  return undefined;
}

async function* readEvents(file: string): AsyncGenerator<RecordedEvent, void, void> {
  for await (const { event } of readLines(file)) if (event !== undefined) yield event;
}

/** Events that end a process's part of the run, and events that the next part emits again. */
const ENDS = new Set(["events", "end", "failed", "rows"]);

/** Yields the lines of a file that remain valid when the run is resumed after `step` steps. */
async function* readKeptLines(file: string, step: number): AsyncGenerator<Buffer, void, void> {
  let beyond = false;
  for await (const line of readLines(file)) {
    const { bytes, event } = line;
    if (event === undefined || ENDS.has(event.type)) continue;
    const eventStep = event["step"];
    beyond = typeof eventStep === "number" ? eventStep > step : beyond;
    if (!beyond) yield bytes;
  }
}
