/** What a dashboard shows: the runs of a folder, or one that goes on in this process. */
import { basename, dirname, resolve } from "node:path";

import { RunFinder } from "../runs/find.js";
import { RunReader, type RunSummary } from "../runs/summary.js";

export interface RunSource {
  /** What the page is called. */
  readonly title: string;
  /** The runs as they stand, and what is said of files that cannot be read. */
  list(): Promise<{ runs: RunSummary[]; notices: string[] }>;
  /** Where a run's file lies now; undefined as long as there is none. */
  file(name: string): string | undefined;
  /** Has a run finish its step, save and end; undefined where that is not this process's to say. */
  stop?: (() => void) | undefined;
  /** Has it pause after its step, and continue; undefined where it cannot be paused. */
  pause?: (() => void) | undefined;
  resume?: (() => void) | undefined;
}

/** How a run of this process is paused. */
export interface PauseControls {
  pause(): void;
  resume(): void;
}

/** The runs of a folder, found again each time. */
export function folderSource(folder: string): RunSource {
  const finder = new RunFinder(folder);
  const files = new Map<string, string>();
  return {
    title: basename(resolve(folder)),
    async list() {
      const found = await finder.find();
      files.clear();
      for (const run of found.runs) files.set(run.name, run.file);
      return found;
    },
    file: (name) => files.get(name),
  };
}

/** The name of a run that is shown alone. */
const ALONE = ".";

/** A run of this process. `file` gives where its events lie, once they do. */
export function liveSource(
  title: () => string,
  file: () => string | undefined,
  stop: () => void,
  pauses?: PauseControls,
): RunSource {
  let reader: RunReader | undefined;
  let last: RunSummary = {
    name: ALONE,
    folder: "",
    file: "",
    state: "running",
    model: null,
    step: 0,
    steps: null,
    loss: null,
    evalLoss: null,
    bestEvalLoss: null,
    learningRate: null,
    rank: null,
    started: Date.now(),
    updated: Date.now(),
    message: null,
    checkpoint: null,
    damaged: 0,
  };
  return {
    get title() {
      return title();
    },
    async list() {
      const path = file();
      // It is renamed once the run has saved something.
      if (path !== undefined && reader?.file !== path) reader = new RunReader(path, ALONE);
      const found = await reader?.read().catch(() => undefined);
      if (found !== undefined) last = { ...found, folder: dirname(found.file) };
      else if (reader !== undefined) last = { ...last, state: "interrupted" };
      return { runs: [last], notices: [] };
    },
    file,
    stop,
    ...(pauses !== undefined && { pause: () => pauses.pause(), resume: () => pauses.resume() }),
  };
}
