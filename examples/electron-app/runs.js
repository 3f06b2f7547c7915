// Finds the runs in a folder by the file that lowrank writes next to each adapter: events.jsonl, one event per line.
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";

/** Returns the runs in `folder`, newest first. `included` are the paths of files that come with the app. */
export async function findRuns({ folder, included }) {
  const names = await readdir(folder).catch(() => []);
  const found = await Promise.all(names.map((name) => readRun(join(folder, name))));
  // Paths of included files change with an update, and with each start of an AppImage.
  const present = (path) =>
    existsSync(path) ? path : (included.find((one) => basename(one) === basename(path)) ?? path);
  return found
    .filter((run) => run !== undefined)
    .map((run) => ({ ...run, model: present(run.model), data: present(run.data) }))
    .sort((a, b) => b.started - a.started);
}

/** Reads a run from its output folder; undefined if no run was started there. */
async function readRun(output) {
  const text = await readFile(join(output, "events.jsonl"), "utf8").catch(() => "");
  let run;
  for (const line of text.split("\n")) {
    const event = parsed(line);
    if (event?.type === "start") {
      const { model, data, steps, at } = event;
      run ??= { output, model, data: data[0].file, started: at, steps, step: 0, points: [] };
      Object.assign(run, { steps, done: false });
    }
    if (run === undefined) continue;
    if (event?.type === "step") {
      run.step = event.step;
      run.points.push([event.step, event.loss]);
    }
    // A checkpoint contains an adapter.
    if (event?.type === "checkpoint" && existsSync(event.path))
      Object.assign(run, { adapter: event.path, saved: event.step });
    if (event?.type === "end") {
      run.done = !event.stopped;
      if (event.adapter) run.adapter = event.adapter;
    }
  }
  return run;
}

/** Parses a line; undefined if a crash truncated it. */
function parsed(line) {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
