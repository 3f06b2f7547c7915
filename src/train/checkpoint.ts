/** What a checkpoint holds: all that going on with a run to the bit takes, as a folder. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import type { Cursor } from "../data/batches.js";
import { LowrankError } from "../errors.js";
import type { Optimizer, OptimizerState, ParameterState } from "../optim/optimizer.js";
import { randomState, setRandomState, type RandomState } from "../random.js";
import { load as loadSafetensors, save as saveSafetensors, writeWhole } from "../safetensors.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import type { Judged } from "./early-stopping.js";
import type { Identities } from "./identity.js";
import { isLine, type Line } from "./output/lineage.js";
import { manifestOf, sealed, unsealed, type Manifest } from "./output/manifest.js";
import { RUN, VERSION } from "./output/run-file.js";

/** The optimizer's state, beside the adapter. */
const STATE = "optimizer.safetensors";

/** What a checkpoint's `run.json` says of the run. */
export interface Provenance {
  line: Line;
  /** The options that the run was started with, completed, and where their relative paths start. */
  options: Record<string, unknown>;
  cwd: string;
  identities: Identities;
  /** Where it was trained. */
  device: string;
}

/** What a checkpoint's `run.json` holds. */
export interface Progress extends Provenance {
  version: number;
  /** Tells it from a run's. */
  kind: "checkpoint";
  cursor: Cursor;
  random: RandomState;
  /** Updates of each parameter, in the optimizer's order. */
  updates: number[];
  /** The held-out loss at this step, where it was evaluated; and what evaluations came to so far. */
  evalLoss: number | null;
  judged: Judged;
  /** Lineages whose checkpoints the run was to replace. */
  replaces?: string[] | undefined;
  /** Optimizer steps that the run was planned with. */
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
  /** When, as ISO 8601. */
  saved: string;
  /** The other files of the folder. */
  files: Manifest;
}

/** Writes optimizer, random state and `run.json` into a folder that holds the adapter already. Throws `ERR_WRITE`. */
export async function writeState(
  folder: string,
  optimizer: Optimizer,
  rest: Provenance &
    Pick<
      Progress,
      "cursor" | "evalLoss" | "judged" | "replaces" | "total" | "reference" | "referenceGradient"
    >,
): Promise<void> {
  const { tensors, updates } = flat(optimizer.stateDict());
  try {
    await saveSafetensors(join(folder, STATE), tensors);
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose();
  }
  const progress: Progress = {
    version: VERSION,
    kind: "checkpoint",
    ...rest,
    random: randomState(),
    updates,
    saved: new Date().toISOString(),
    files: await manifestOf(folder),
  };
  await writeWhole(join(folder, RUN), sealed(progress));
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

/** Reads a checkpoint's `run.json`. Throws `ERR_FILE_FORMAT`. */
export async function readProgress(folder: string): Promise<Progress> {
  const file = join(folder, RUN);
  let value: Partial<Progress>;
  try {
    value = unsealed(await readFile(file, "utf8")) as Partial<Progress>;
  } catch (cause) {
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: ${(cause as Error).message}`, { cause });
  }
  const { cursor, random, updates } = value;
  const whole =
    value.version === VERSION &&
    value.kind === "checkpoint" &&
    Number.isSafeInteger(cursor?.step) &&
    Number.isSafeInteger(random?.seed) &&
    Number.isSafeInteger(random?.draws) &&
    Array.isArray(updates) &&
    updates.every(Number.isSafeInteger) &&
    isLine(value.line);
  if (!whole)
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: not what a checkpoint of this version holds`);
  return value as Progress;
}

/** Adds to a checkpoint what became known of it later: an evaluation, or whether it is good. Throws `ERR_WRITE`. */
export async function amendProgress(
  folder: string,
  known: Partial<Pick<Progress, "evalLoss" | "judged" | "good">>,
): Promise<void> {
  const progress = await readProgress(folder);
  await writeWhole(join(folder, RUN), sealed({ ...progress, ...known }));
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
