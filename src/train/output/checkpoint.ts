/** The contents of a checkpoint folder: everything needed to resume a run with identical bits. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import type { Cursor } from "../../data/batches.js";
import { LowrankError } from "../../errors.js";
import type { Optimizer, ParameterState } from "../../optim/optimizer.js";
import { flattenState } from "../../optim/state-file.js";
import { readRandomState, setRandomState, type RandomState } from "../../tensor/random.js";
import { readAll, save as saveSafetensors, writeWhole } from "../../files/safetensors.js";
import { scope } from "../../tensor/scope.js";
import { isLine, type Line } from "./lineage.js";
import { digestFolder, sealJson, parseSealed, type Manifest } from "./manifest.js";
import { isRandomState } from "./resumable.js";
import { RUN, VERSION, type Identities } from "./run-file.js";

/** The file of the optimizer's state, next to the adapter. */
const STATE = "optimizer.safetensors";

/** The origin of a run, as a checkpoint's `run.json` stores it. */
export interface Provenance {
  line: Line;
  /** The run's complete options. */
  options: Record<string, unknown>;
  /** The folder that relative paths in the options start from. */
  cwd: string;
  identities: Identities;
  /** The device that trained the checkpoint. */
  device: string;
}

/** The state of early stopping, as a checkpoint stores it. */
export interface EarlyStoppingState {
  /** The lowest held-out loss since training began, and its step. */
  best: {
    step: number;
    loss: number;
    /** The folder of its checkpoint, if it is not the output folder. */ folder?: string | undefined;
  } | null;
  /** Evaluations since the best one. */
  since: number;
}

/** The contents of a checkpoint's `run.json`. */
export interface Progress extends Provenance {
  version: number;
  /** Distinguishes the file from the `run.json` of a run. */
  kind: "checkpoint";
  cursor: Cursor;
  random: RandomState;
  /** The number of updates of each parameter, in the optimizer's order. */
  updates: number[];
  /** The held-out loss at this step; null if it was not evaluated. */
  evalLoss: number | null;
  /** The state of early stopping. */
  judged: EarlyStoppingState;
  /** The lineages with checkpoints that the run replaces when it is done. */
  replaces?: string[] | undefined;
  /** The planned number of optimizer steps. */
  total?: number | undefined;
  /** The loss before training: see `Divergence`. */
  reference?: number | undefined;
  /** The gradient norm before training: see `Divergence`. */
  referenceGradient?: number | undefined;
  /**
   * Whether these weights have the loss of a healthy run; absent until the next step, or an evaluation, has computed
   * that loss.
   */
  good?: boolean | undefined;
  /** The time of the save, as ISO 8601. */
  saved: string;
  /** The manifest of the other files in the folder. */
  files: Manifest;
}

/** Writes the optimizer state, the random state and `run.json` into a folder with an adapter. Throws `ERR_WRITE`. */
export async function writeState(
  folder: string,
  optimizer: Optimizer,
  rest: Provenance &
    Pick<
      Progress,
      "cursor" | "evalLoss" | "judged" | "replaces" | "total" | "reference" | "referenceGradient"
    >,
): Promise<void> {
  const { tensors, updates } = flattenState(optimizer.stateDict());
  try {
    await saveSafetensors(join(folder, STATE), tensors);
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose();
  }
  const progress: Progress = {
    version: VERSION,
    kind: "checkpoint",
    ...rest,
    random: readRandomState(),
    updates,
    saved: new Date().toISOString(),
    files: await digestFolder(folder),
  };
  await writeWhole(join(folder, RUN), sealJson(progress));
}

/** Reads a checkpoint's `run.json`. Throws `ERR_FILE_FORMAT`. */
export async function readProgress(folder: string): Promise<Progress> {
  const file = join(folder, RUN);
  let value: Partial<Progress>;
  try {
    value = parseSealed(await readFile(file, "utf8")) as Partial<Progress>;
  } catch (cause) {
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: ${(cause as Error).message}`, { cause });
  }
  const { cursor, random, updates } = value;
  const isComplete =
    value.version === VERSION &&
    value.kind === "checkpoint" &&
    Number.isSafeInteger(cursor?.step) &&
    isRandomState(random) &&
    Array.isArray(updates) &&
    updates.every(Number.isSafeInteger) &&
    isLine(value.line);
  if (!isComplete) throw new LowrankError("ERR_FILE_FORMAT", `${file}: not a checkpoint of this version`);
  return value as Progress;
}

/** Adds later findings to a checkpoint: an evaluation, or whether it is good. Throws `ERR_WRITE`. */
export async function amendProgress(
  folder: string,
  known: Partial<Pick<Progress, "evalLoss" | "judged" | "good">>,
): Promise<void> {
  const progress = await readProgress(folder);
  await writeWhole(join(folder, RUN), sealJson({ ...progress, ...known }));
}

/** Restores the optimizer state and the random state. `loadAdapter` restores the adapter's values. */
export async function restoreState(folder: string, progress: Progress, optimizer: Optimizer): Promise<void> {
  const file = join(folder, STATE);
  const device = optimizer.groups[0]?.params[0]?.device;
  const tensors = readAll(file, device);
  try {
    const state: Record<number, ParameterState> = {};
    for (const [key, tensor] of Object.entries(tensors)) {
      const [place, name] = key.split(".") as [string, string | undefined];
      const step = progress.updates[Number(place)];
      if (name === undefined || step === undefined) {
        throw new LowrankError("ERR_UNMATCHED_KEY", `${file}: unknown tensor ${key} in an optimizer's state`);
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
