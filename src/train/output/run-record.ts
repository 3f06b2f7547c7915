/** `run.json` of an output folder: the run's inputs, and the files in the folder that belong to it. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { LowrankError, readSystemCode } from "../../errors.js";
import { writeWhole } from "../../files/safetensors.js";
import type { Provenance } from "./checkpoint.js";
import { listCheckpoints } from "./checkpoints.js";
import { isLine, isWithinLine, type Line } from "./lineage.js";
import type { Manifest } from "./manifest.js";
import { sealJson, parseSealed } from "./manifest.js";
import { RUN, VERSION, type Identities } from "./run-file.js";

/** A saved checkpoint of the run. */
export interface SavedCheckpoint {
  /** The name of its folder in the output folder. */
  name: string;
  step: number;
  lineage: string;
  /** The held-out loss at that step; null if it was not evaluated. */
  evalLoss: number | null;
}

export interface RunRecord {
  version: number;
  /** Distinguishes the file from a checkpoint's. */
  kind: "run";
  /** The time of the first start. */
  started: string;
  /** The folder that relative paths in `options` start from. */
  cwd: string;
  /** The complete options of `finetune`. */
  options: Record<string, unknown>;
  /** The identities of the model, the tokenizer and the data. */
  identities: Identities;
  line: Line;
  /** The checkpoint that the run was last resumed from. */
  parent: string | null;
  /** The checkpoints that are kept, in the order of saving. */
  checkpoints: SavedCheckpoint[];
  /** The digests of the adapter files in the folder, including files of a run that this run replaces. */
  files: Manifest;
  /** Whether the folder contains results of another run that are kept until this run is done. */
  replacing: boolean;
  /** The lineages with checkpoints that are removed when this run is done. */
  replaces: string[];
  /** The staging folder that the adapter's files are being moved from. */
  placing?: string | undefined;
  /** How the run last ended. */
  ended?: { step: number; why: "done" | "stopped" | "patience"; best?: number | undefined } | undefined;
}

/** Reads the record of an output folder; undefined if there is none. Throws `ERR_FILE_FORMAT` for an invalid file. */
export async function readRunRecord(output: string): Promise<RunRecord | undefined> {
  const file = join(output, RUN);
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(readSystemCode(error) ?? "")) return undefined;
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: cannot be read (${readSystemCode(error)})`, {
      cause: error,
    });
  }
  let value: Partial<RunRecord>;
  try {
    value = parseSealed(text) as Partial<RunRecord>;
  } catch (cause) {
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: is not a run's record: ${(cause as Error).message}`, {
      cause,
    });
  }
  if (value.kind !== "run" || value.version !== VERSION || !isLine(value.line))
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: is not a run's record of this version`);
  return value as RunRecord;
}

/** Throws `ERR_WRITE`. */
export async function writeRunRecord(output: string, record: RunRecord): Promise<void> {
  await writeWhole(join(output, RUN), sealJson(record));
}

/**
 * Returns the record of a run that begins, or that resumes from a checkpoint with its recorded `replaces`. `before` is the
 * folder's existing record.
 */
export async function createRecord(
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
  const existing = await listCheckpoints(output);
  const lineCheckpoints = existing.filter((checkpoint) => isWithinLine(line, checkpoint));
  // A new run removes the checkpoints of other runs when it ends.
  const anew = parent === null;
  const listed = anew ? existing.map(({ lineage }) => lineage) : (rest.replaces ?? []);
  const replaces = listed.filter((lineage) => !line.some((segment) => segment.lineage === lineage));
  const files = before?.files ?? {};
  // The result of a completed run is kept until another run has completed.
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
    checkpoints: lineCheckpoints.map(({ name, step, lineage, progress: { evalLoss } }) => ({
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
