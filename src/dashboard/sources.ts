/** The sources of a dashboard: the runs in a folder, or a run of this process. */
import { basename, dirname, resolve } from "node:path";

import { RunFinder } from "../runs/find.js";
import { RunReader, type RunSummary } from "../runs/summary.js";

export interface RunSource {
  /** The title of the page. */
  readonly title: string;
  /** Returns the summaries of the runs, and the errors of unreadable files. */
  list(): Promise<{ runs: RunSummary[]; notices: string[] }>;
  /** Returns the current path of a run's events file; undefined before it exists. */
  file(name: string): string | undefined;
  /** Ends a run after its current step, with a checkpoint; undefined if this process does not run it. */
  stop?: (() => void) | undefined;
  /** Pauses a run after its current step; undefined if it cannot be paused. */
  pause?: (() => void) | undefined;
  /** Continues a paused run; undefined if it cannot be paused. */
  resume?: (() => void) | undefined;
}

/** The controls for pausing a run of this process. */
export interface PauseControls {
  pause(): void;
  resume(): void;
}

/** The runs in a folder, which is searched for each list. */
export function openFolderSource(folder: string): RunSource {
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

/** The name of the only run. */
const ALONE = ".";

/** A run of this process. `file` returns the path of its events, once they exist. */
export function openLiveSource(
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
      // The file is renamed once the run has saved something.
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
