/** `run.json` of an output folder: what a run was started with, and what of the folder is its own. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { LowrankError, systemCode } from "../../errors.js";
import { writeWhole } from "../../safetensors.js";
import type { Provenance } from "../checkpoint.js";
import type { Identities } from "../identity.js";
import { listCheckpoints } from "./checkpoints.js";
import { isLine, within, type Line } from "./lineage.js";
import type { Manifest } from "./manifest.js";
import { sealed, unsealed } from "./manifest.js";
import { RUN, VERSION } from "./run-file.js";

/** A checkpoint as the run has saved it. */
export interface SavedCheckpoint {
  /** Its folder in the output folder. */
  name: string;
  step: number;
  lineage: string;
  /** The held-out loss at that step, where it was evaluated. */
  evalLoss: number | null;
}

export interface RunRecord {
  version: number;
  /** Tells it from a checkpoint's. */
  kind: "run";
  /** When it was started first. */
  started: string;
  /** Where relative paths of `options` start. */
  cwd: string;
  /** `finetune`'s options, completed. */
  options: Record<string, unknown>;
  /** What model, tokenizer and data held. */
  identities: Identities;
  line: Line;
  /** The checkpoint that the run last went on from. */
  parent: string | null;
  /** Those that are kept, in the order of saving. */
  checkpoints: SavedCheckpoint[];
  /** The adapter's files in the folder, by what was written; those of a run that this one replaces among them. */
  files: Manifest;
  /** Whether an adapter is there that stays until this run is done, and the lineages whose checkpoints go then. */
  replacing: boolean;
  replaces: string[];
  /** The folder from which the adapter's files are being put in their places. */
  placing?: string | undefined;
  /** How it ended last. */
  ended?: { step: number; why: "done" | "stopped" | "patience"; best?: number | undefined } | undefined;
}

/** The record of an output folder; undefined where there is none. Throws `ERR_FILE_FORMAT` for a file that is none. */
export async function readRunRecord(output: string): Promise<RunRecord | undefined> {
  const file = join(output, RUN);
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(systemCode(error) ?? "")) return undefined;
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: cannot be read (${systemCode(error)})`, {
      cause: error,
    });
  }
  let value: Partial<RunRecord>;
  try {
    value = unsealed(text) as Partial<RunRecord>;
  } catch (cause) {
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: is no record of a run: ${(cause as Error).message}`, {
      cause,
    });
  }
  if (value.kind !== "run" || value.version !== VERSION || !isLine(value.line))
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: is no record of a run of this version`);
  return value as RunRecord;
}

/** Throws `ERR_WRITE`. */
export async function writeRunRecord(output: string, record: RunRecord): Promise<void> {
  await writeWhole(join(output, RUN), sealed(record));
}

/**
 * The record of a run that begins, or goes on from a checkpoint that says what it `replaces`, in a folder that `before` is
 * about.
 */
export async function newRecord(
  output: string,
  before: RunRecord | undefined,
  {
    line,
    options,
    cwd,
    identities,
    parent,
    ...rest
  }: Provenance & {
    parent: string | null;
    replaces: string[] | undefined;
  },
): Promise<RunRecord> {
  const there = await listCheckpoints(output);
  const own = there.filter((one) => within(line, one));
  // A new run: what is there of others goes when it ends.
  const anew = parent === null;
  const listed = anew ? there.map(({ lineage }) => lineage) : (rest.replaces ?? []);
  const replaces = listed.filter((lineage) => !line.some((segment) => segment.lineage === lineage));
  const files = before?.files ?? {};
  // What a run has given in the end is not given up for what another has not ended with.
  const finished = before?.ended !== undefined && before.ended.why !== "stopped";
  return {
    version: VERSION,
    kind: "run",
    started: (anew ? undefined : before?.started) ?? new Date().toISOString(),
    cwd,
    options,
    identities,
    line,
    parent,
    checkpoints: own.map(({ name, step, lineage, progress: { evalLoss } }) => ({
      name,
      step,
      lineage,
      evalLoss,
    })),
    files,
    replacing:
      finished ||
      before?.replacing === true ||
      replaces.length > 0 ||
      (anew && Object.keys(files).length > 0),
    replaces: [...new Set(replaces)],
  };
}
