/** Finds the runs in a folder and its subfolders. */
import { readdir, stat } from "node:fs/promises";
import { join, relative } from "node:path";

import { LowrankError } from "../errors.js";
import { EVENTS } from "./events-file.js";
import { RunReader, type RunSummary } from "./summary.js";

/** The maximum depth of folders to search. */
const DEPTH = 4;
/** The maximum number of folders to search. */
const MOST = 10_000;
/** Folders that contain no runs and may be large. */
const APART = /^(\.|node_modules$|checkpoint-\d+)/;

/** The runs found in a folder. */
export interface FoundRuns {
  /** Sorted by start, the oldest first. */
  runs: RunSummary[];
  /** Errors of unreadable files. */
  notices: string[];
}

/** Searches a folder on each call of `find`. Known files are read from where the last reading ended. */
export class RunFinder {
  readonly #folder: string;
  readonly #readers = new Map<string, RunReader>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /**
   * Returns the runs, the oldest first, and the errors of unreadable files.
   *
   * Errors: `ERR_FILE_NOT_FOUND` if the folder does not exist or is a file.
   */
  async find(): Promise<FoundRuns> {
    const stats = await stat(this.#folder).catch(() => undefined);
    if (stats?.isDirectory() !== true) {
      const what = stats === undefined ? "there is no such folder" : "is a file; give a folder of runs";
      throw new LowrankError("ERR_FILE_NOT_FOUND", `${this.#folder}: ${what}`);
    }
    const files = await listEventFiles(this.#folder);
    for (const file of this.#readers.keys()) if (!files.includes(file)) this.#readers.delete(file);
    const runs: RunSummary[] = [];
    const notices: string[] = [];
    for (const file of files) {
      const known = this.#readers.get(file);
      const reader = known ?? new RunReader(file, relative(this.#folder, join(file, "..")) || ".");
      this.#readers.set(file, reader);
      try {
        const summary = await reader.read();
        if (summary !== undefined) runs.push(summary);
      } catch (error) {
        notices.push((error as Error).message);
      }
    }
    return { runs: runs.sort((a, b) => a.started - b.started || a.name.localeCompare(b.name)), notices };
  }
}

async function listEventFiles(root: string): Promise<string[]> {
  const found: string[] = [];
  let level = [root];
  let seen = 0;
  for (let depth = 0; depth <= DEPTH && level.length > 0 && seen < MOST; depth++) {
    const below: string[] = [];
    for (const folder of level.slice(0, MOST - seen)) {
      seen++;
      for (const entry of await readdir(folder, { withFileTypes: true }).catch(() => [])) {
        if (entry.isDirectory() && !APART.test(entry.name)) below.push(join(folder, entry.name));
        if (entry.isFile() && entry.name === EVENTS) found.push(join(folder, EVENTS));
      }
    }
    level = below;
  }
  return found;
}
