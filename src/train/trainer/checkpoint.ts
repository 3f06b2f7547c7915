/**
 * Checkpoints of a `Trainer`. `model.safetensors` contains the model's state dict, or `trained.safetensors` the part of
 * it that the run changes; `optimizer.safetensors` the optimizer's state. `trainer.json` contains the step, the random
 * state, the position in the data, and hashes of the tensors that are not stored.
 */
import { existsSync } from "node:fs";
import { readdir, readFile, rm, rmdir, stat } from "node:fs/promises";
import { join, resolve } from "node:path";

import { LowrankError } from "../../errors.js";
import { makeFolder, resolveLocation, replaceFolder } from "../../files/folders.js";
import type { Module } from "../../nn/module.js";
import type { Reference } from "../divergence.js";
import type { Optimizer } from "../../optim/optimizer.js";
import type { RandomState } from "../../tensor/random.js";
import { readAll, save, writeWhole } from "../../files/safetensors.js";
import { checkBase, isBaseTensor, type BaseTensor, type TrainedParts } from "./base.js";
import { describeDivergence, explainMissing, isRandomState } from "../output/resumable.js";
import type { Position } from "./data.js";

const STATE = "trainer.json";
const MODEL = "model.safetensors";
const TRAINED = "trained.safetensors";
const OPTIMIZER = "optimizer.safetensors";
const VERSION = 1;
const CHECKPOINT = /^checkpoint-\d+$/;

/** The contents of `trainer.json`. */
export interface TrainerProgress {
  version: number;
  /** Distinguishes the file from a fine-tuning run's. */
  kind: "trainer";
  /** Completed optimizer steps. */
  step: number;
  position: Position;
  random: RandomState;
  gradientAccumulation: number;
  /** The ID of the run that wrote it; a resumed run keeps its ID. */
  run?: string;
  /** The tensors that the checkpoint omits, if it stores only the trained part. */
  base?: BaseTensor[];
  /** The time of the save, in milliseconds since 1970. */
  saved?: number;
  /** Loss and gradient norm before training: see `Divergence`. */
  reference?: Reference | undefined;
  /** Whether the weights are good; absent until the next step has computed their loss. */
  good?: boolean | undefined;
}

/** The stored part of the model: its state dict, or only the tensors that the run changes. */
export type Stored = "all" | "adapter";

/** The objects that a checkpoint restores. */
export interface Subject {
  model: Module;
  optimizer: Optimizer;
}

/** The source of a checkpoint. */
export interface Saved extends Subject {
  parts: TrainedParts;
  stored: Stored;
}

/** Writes a checkpoint to a staging folder and renames it over an earlier one. Throws `ERR_WRITE`. */
export async function writeTrainerCheckpoint(
  folder: string,
  { model, optimizer, parts, stored }: Saved,
  progress: Pick<
    TrainerProgress,
    "step" | "position" | "random" | "gradientAccumulation" | "run" | "reference"
  >,
): Promise<void> {
  const place = resolveLocation(folder);
  const staging = `${place}.tmp-${process.pid}`;
  try {
    if (existsSync(folder) && !existsSync(join(folder, STATE)) && (await readdir(folder)).length > 0)
      throw new LowrankError(
        "ERR_WRITE",
        `${folder}: contains files that are not a Trainer's checkpoint; they are not replaced`,
      );
    await rm(staging, { recursive: true, force: true });
    await makeFolder(staging);
    const state: TrainerProgress = { version: VERSION, kind: "trainer", ...progress, saved: Date.now() };
    if (stored === "all") await save(join(staging, MODEL), model.stateDict());
    else {
      const { trained, base } = parts.split();
      await save(join(staging, TRAINED), trained);
      state.base = await parts.describe(base);
    }
    await optimizer.save(join(staging, OPTIMIZER));
    await writeWhole(join(staging, STATE), `${JSON.stringify(state, null, 2)}\n`);
    await replaceFolder(staging, place);
  } catch (error) {
    await rm(staging, { recursive: true, force: true }).catch(() => {});
    if (error instanceof LowrankError) throw error;
    throw new LowrankError("ERR_WRITE", `${folder}: ${(error as Error).message}`, { cause: error });
  }
}

/** The checkpoint to continue from. */
export interface FoundCheckpoint {
  path: string;
  /** The newest good checkpoint of the same run, up to this one. */
  good?: string | undefined;
  /** A message for the user. */
  notice?: string | undefined;
}

/**
 * Returns the folder itself if it is a checkpoint. Otherwise returns the newest checkpoint in it, or the last good one of
 * the same run if the newest is known to be bad.
 *
 * Errors: `ERR_FILE_NOT_FOUND`; `ERR_NOT_FINITE` if no checkpoint is good.
 */
export async function findTrainerCheckpoint(folder: string): Promise<FoundCheckpoint> {
  if (existsSync(join(folder, STATE))) {
    const { good } = await readProgress(join(folder, STATE));
    if (good === false) return { path: folder, notice: describeDivergence(folder) };
    return { path: folder, good: good === true ? folder : undefined };
  }
  // Sorted by time, because an earlier run in the same folder may have more steps.
  const found = await listTrainerCheckpoints(folder);
  const [newest] = found;
  if (newest === undefined)
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${folder}: ${explainMissing(folder)}`);
  const lastGood = found.find(
    ({ run, good, step }) => good === true && run !== undefined && run === newest.run && step <= newest.step,
  );
  if (newest.good !== false) return { path: newest.path, good: lastGood?.path };
  if (lastGood === undefined)
    throw new LowrankError(
      "ERR_NOT_FINITE",
      `${folder}: training had diverged before its first checkpoint: none is good; start a new run with a lower learning rate. To resume from a bad checkpoint, give its folder as resume`,
    );
  return { path: lastGood.path, good: lastGood.path, notice: describeDivergence(newest.path, lastGood.path) };
}

/** Records in a checkpoint whether it is good. Throws `ERR_WRITE`. */
export async function markTrainerCheckpoint(folder: string, good: boolean): Promise<void> {
  const file = join(folder, STATE);
  const progress = await readProgress(file);
  await writeWhole(file, `${JSON.stringify({ ...progress, good }, null, 2)}\n`);
}

/** A checkpoint in a folder; if its state cannot be read, only the file's time is known. */
interface Listed {
  path: string;
  step: number;
  saved: number;
  run?: string | undefined;
  good?: boolean | undefined;
}

/** Lists the checkpoints in a folder, the newest first. */
async function listTrainerCheckpoints(folder: string): Promise<Listed[]> {
  const names = await readdir(folder).catch(() => [] as string[]);
  const found = names
    .filter((name) => CHECKPOINT.test(name) && existsSync(join(folder, name, STATE)))
    .map(async (name): Promise<Listed> => {
      const path = join(folder, name);
      const file = join(path, STATE);
      const { saved, run, good } = (await readProgress(file).catch(() => undefined)) ?? {};
      const step = Number(name.slice("checkpoint-".length));
      return { path, step, saved: saved ?? (await stat(file)).mtimeMs, run, good };
    });
  return (await Promise.all(found)).sort((a, b) => b.saved - a.saved || b.step - a.step);
}

/**
 * Restores model and optimizer; the optimizer keeps its options. Throws `ERR_FILE_FORMAT` for a damaged file, and
 * `ERR_UNMATCHED_KEY` or `ERR_SHAPE_MISMATCH` for another model or optimizer, whose values are then unchanged. Errors of
 * `accept` are thrown before anything is changed.
 */
export async function readTrainerCheckpoint(
  folder: string,
  { model, optimizer }: Subject,
  accept: (progress: TrainerProgress) => void,
): Promise<TrainerProgress & { names: string[] }> {
  const progress = await readProgress(join(folder, STATE));
  accept(progress);
  const { base } = progress;
  const file = join(folder, base === undefined ? MODEL : TRAINED);
  const tensors = readAll(file, "cpu");
  const names = Object.keys(tensors);
  try {
    const state = model.stateDict();
    for (const name of new Set([...(base === undefined ? Object.keys(state) : []), ...names])) {
      const [given, wanted] = [tensors[name], state[name]];
      if (given === undefined || wanted === undefined) {
        const what = given === undefined ? "is missing" : "is not in the model";
        throw new LowrankError("ERR_UNMATCHED_KEY", `${file}: ${name} ${what}`);
      }
      if (given.shape.join() !== wanted.shape.join()) {
        throw new LowrankError(
          "ERR_SHAPE_MISMATCH",
          `${file}: ${name} is [${given.shape.join(", ")}], the model's is [${wanted.shape.join(", ")}]`,
        );
      }
    }
    if (base !== undefined) await checkBase(file, model, base, new Set(names));
    const options = optimizer.groups.map((group) => ({ ...group }));
    await optimizer.load(join(folder, OPTIMIZER));
    // The caller's options override the learning rates that the file stores.
    for (const [i, group] of optimizer.groups.entries()) Object.assign(group, options[i]);
    model.loadStateDict(tensors, { strict: base === undefined });
    await optimizer.renew();
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose();
  }
  return { ...progress, names };
}

/**
 * Removes old checkpoints of the run `run` in `folder`, except for the newest `keep` and the one at `good`. Other runs'
 * checkpoints and files of other names are not touched.
 */
export async function pruneTrainerCheckpoints(
  folder: string,
  run: string,
  { keep, good }: { keep: number; good: string | undefined },
): Promise<void> {
  const found = (await listTrainerCheckpoints(folder)).filter((checkpoint) => checkpoint.run === run);
  for (const { path } of found.slice(keep)) {
    if (good !== undefined && resolve(path) === resolve(good)) continue;
    // The state file is removed last: while it exists, the next call can finish an interrupted removal.
    for (const file of [MODEL, TRAINED, OPTIMIZER, STATE]) await rm(join(path, file), { force: true });
    await rmdir(path).catch(() => {});
  }
}

async function readProgress(file: string): Promise<TrainerProgress> {
  let value: Partial<TrainerProgress> | null;
  try {
    value = JSON.parse(await readFile(file, "utf8")) as Partial<TrainerProgress> | null;
  } catch (cause) {
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: ${(cause as Error).message}`, { cause });
  }
  const counts = [value?.step, value?.position?.epoch, value?.position?.taken, value?.gradientAccumulation];
  const isComplete =
    value?.version === VERSION &&
    value.kind === "trainer" &&
    counts.every((n) => Number.isSafeInteger(n) && (n as number) >= 0) &&
    (value.saved === undefined || Number.isSafeInteger(value.saved)) &&
    (value.run === undefined || typeof value.run === "string") &&
    (value.good === undefined || typeof value.good === "boolean") &&
    (value.reference === undefined || isReference(value.reference)) &&
    (value.base === undefined || (Array.isArray(value.base) && value.base.every(isBaseTensor))) &&
    [value.random, value.position?.random].every(isRandomState);
  if (!isComplete)
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: not a Trainer's checkpoint of this version`);
  return value as TrainerProgress;
}

function isReference(value: unknown): value is Reference {
  const { loss, gradNorm = 0 } = (value ?? {}) as Partial<Reference>;
  return Number.isFinite(loss) && Number.isFinite(gradNorm);
}
