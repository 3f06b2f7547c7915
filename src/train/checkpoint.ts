/** Checkpoints of a fine-tuning run: all that going on with it to the bit takes, as a folder. */
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";

import type { Cursor } from "../data/batches.js";
import { makeFolder } from "../folders.js";
import { LowrankError, systemCode } from "../errors.js";
import type { Optimizer, OptimizerState, ParameterState } from "../optim/optimizer.js";
import { randomState, setRandomState, type RandomState } from "../random.js";
import { load as loadSafetensors, save as saveSafetensors, writeWhole } from "../safetensors.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";

const STATE = "optimizer.safetensors";
const RUN = "run.json";
const VERSION = 1;

/** What `run.json` holds. */
export interface Progress {
  version: number;
  cursor: Cursor;
  random: RandomState;
  /** Updates of each parameter, in the optimizer's order. */
  updates: number[];
  /** The options that the run was started with, as they were completed. */
  options: Record<string, unknown>;
}

/** The folder of the checkpoint after `step` steps. */
export function checkpointFolder(output: string, step: number): string {
  return join(output, `checkpoint-${step}`);
}

/** The step of a checkpoint's folder; undefined for another name. */
function stepOf(name: string): number | undefined {
  const found = /^checkpoint-(\d+)$/.exec(name);
  return found === null ? undefined : Number(found[1]);
}

/** Writes a checkpoint beside its place and renames it; one that is there already is replaced. */
export async function saveCheckpoint(
  output: string,
  {
    optimizer,
    adapter,
    cursor,
    options,
  }: {
    optimizer: Optimizer;
    /** Saves the adapter into a folder. */
    adapter: (folder: string) => Promise<void>;
    cursor: Cursor;
    options: Record<string, unknown>;
  },
): Promise<string> {
  const folder = checkpointFolder(output, cursor.step);
  const beside = `${folder}.tmp-${process.pid}`;
  try {
    await rm(beside, { recursive: true, force: true });
    await makeFolder(beside);
    await adapter(beside);
    const { tensors, updates } = flat(optimizer.stateDict());
    try {
      await saveSafetensors(join(beside, STATE), tensors);
    } finally {
      for (const tensor of Object.values(tensors)) tensor.dispose();
    }
    const progress: Progress = { version: VERSION, cursor, random: randomState(), updates, options };
    await writeWhole(join(beside, RUN), `${JSON.stringify(progress, null, 2)}\n`);
    await rm(folder, { recursive: true, force: true });
    await rename(beside, folder);
  } catch (error) {
    await rm(beside, { recursive: true, force: true }).catch(() => {});
    if (error instanceof LowrankError) throw error;
    throw new LowrankError("ERR_WRITE", `${folder}: ${(error as Error).message}`, { cause: error });
  }
  return folder;
}

/** The state's tensors by `PLACE.NAME`, and how often each parameter was updated. */
function flat({ state, paramGroups }: OptimizerState<object>): {
  tensors: Record<string, Tensor>;
  updates: number[];
} {
  const tensors: Record<string, Tensor> = {};
  const updates = paramGroups.flatMap(({ params }) => params).map((place) => state[place]?.step ?? 0);
  for (const [place, parts] of Object.entries(state)) {
    for (const [name, value] of Object.entries(parts)) {
      if (typeof value !== "number") tensors[`${place}.${name}`] = value;
    }
  }
  return { tensors, updates };
}

/** The newest checkpoint in an output folder, or the folder itself if it is one. Throws `ERR_FILE_NOT_FOUND`. */
export async function findCheckpoint(output: string, resume: true | string): Promise<string> {
  const folder = resume === true ? output : resume;
  if (existsSync(join(folder, RUN))) return folder;
  const names = await readdir(folder).catch(() => [] as string[]);
  const steps = names
    .map(stepOf)
    .filter((step) => step !== undefined)
    .filter((step) => existsSync(join(checkpointFolder(folder, step), RUN)));
  if (steps.length > 0) return checkpointFolder(folder, Math.max(...steps));
  const what = existsSync(folder)
    ? "there is no checkpoint to go on from"
    : "there is no such folder to go on from";
  throw new LowrankError("ERR_FILE_NOT_FOUND", `${folder}: ${what}`);
}

/** Reads `run.json`. Throws `ERR_FILE_FORMAT`. */
export async function readProgress(folder: string): Promise<Progress> {
  const file = join(folder, RUN);
  let value: Partial<Progress>;
  try {
    value = JSON.parse(await readFile(file, "utf8")) as Partial<Progress>;
  } catch (cause) {
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: ${(cause as Error).message}`, { cause });
  }
  const { cursor, random, updates } = value;
  const whole =
    value.version === VERSION &&
    Number.isSafeInteger(cursor?.step) &&
    Number.isSafeInteger(random?.seed) &&
    Number.isSafeInteger(random?.draws) &&
    Array.isArray(updates) &&
    updates.every(Number.isSafeInteger);
  if (!whole)
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: not what a checkpoint of this version holds`);
  return value as Progress;
}

/** Puts optimizer and random numbers where they were. The adapter's values are read by `loadAdapter`. */
export async function restoreState(folder: string, progress: Progress, optimizer: Optimizer): Promise<void> {
  const file = join(folder, STATE);
  const device = optimizer.groups[0]?.params[0]?.device;
  const tensors = await loadSafetensors(file, device === undefined ? {} : { device });
  try {
    const state: Record<number, ParameterState> = {};
    for (const [key, tensor] of Object.entries(tensors)) {
      const [place, name] = key.split(".") as [string, string | undefined];
      const step = progress.updates[Number(place)];
      if (name === undefined || step === undefined) {
        throw new LowrankError("ERR_UNMATCHED_KEY", `${file}: ${key} is no part of an optimizer's state`);
      }
      Object.assign((state[Number(place)] ??= { step }), { [name]: tensor });
    }
    const { paramGroups } = scope(() => ({ paramGroups: optimizer.stateDict().paramGroups }));
    optimizer.loadStateDict({ state, paramGroups });
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose();
  }
  setRandomState(progress.random);
}

/** Whether a run has left anything in a folder. */
async function holdsRun(folder: string): Promise<boolean> {
  const names = await readdir(folder);
  return names.some(
    (name) =>
      name === "adapter_config.json" || name === "adapter_model.safetensors" || stepOf(name) !== undefined,
  );
}

/** Removes what a run that was killed while it saved has left half-written. */
async function sweep(output: string): Promise<void> {
  for (const name of await readdir(output)) {
    if (/^(checkpoint-\d+\.tmp|\.lowrank)-\d+$/.test(name)) {
      await rm(join(output, name), { recursive: true, force: true });
    }
  }
}

/**
 * Makes sure, before any work, that the output folder can be written and holds no other run. Gives what takes the
 * folder away again if the run ends with nothing in it.
 *
 * Errors: `ERR_OUTPUT_EXISTS`, `ERR_WRITE`.
 */
export async function claimOutput(output: string, reuse: boolean): Promise<() => Promise<void>> {
  let made: string | undefined;
  try {
    made = await makeFolder(output);
    const probe = join(output, `.lowrank-${process.pid}`);
    await mkdir(probe);
    await rm(probe, { recursive: true });
  } catch (cause) {
    const code = systemCode(cause);
    if (code === "EEXIST" || code === "ENOTDIR") {
      throw new LowrankError(
        "ERR_OUTPUT_EXISTS",
        `${output}: is a file or lies below one, and a folder was expected`,
        { cause },
      );
    }
    throw new LowrankError(
      "ERR_WRITE",
      `${output}: cannot be written (${code ?? (cause as Error).message})`,
      { cause },
    );
  }
  if (reuse) await sweep(output);
  if (!reuse && (await holdsRun(output))) {
    throw new LowrankError(
      "ERR_OUTPUT_EXISTS",
      `${output}: holds another run; go on with it by resume, or choose another folder`,
    );
  }
  return async () => {
    if (made !== undefined && (await readdir(output).catch(() => [""])).length === 0) {
      await rm(made, { recursive: true, force: true });
    }
  };
}

/** Removes what an earlier run left. */
export async function clearOutput(output: string): Promise<void> {
  for (const name of await readdir(output)) {
    const own = ["adapter_config.json", "adapter_model.safetensors", "labels.json"].includes(name);
    if (own || stepOf(name) !== undefined) await rm(join(output, name), { recursive: true, force: true });
  }
}
