/** Finds, verifies, places and removes the checkpoints in an output folder. */
import { optionName, optionSetting } from "../../arguments/option-name.js";
import { existsSync } from "node:fs";
import { readdir, rmdir } from "node:fs/promises";
import { dirname, join } from "node:path";

import { LowrankError } from "../../errors.js";
import { move, remove } from "../../files/folders.js";
import { readProgress, type Progress } from "./checkpoint.js";
import { readLineage, isWithinLine, type Line } from "./lineage.js";
import { findDamage, listFiles, syncFolder } from "./manifest.js";
import { nameCheckpoint, explainMissing } from "./resumable.js";
import { RUN } from "./run-file.js";
import type { RunRecord } from "./run-record.js";

/** A checkpoint with a readable `run.json`. */
export interface Checkpoint {
  folder: string;
  name: string;
  step: number;
  lineage: string;
  progress: Progress;
}

const NAME = /^checkpoint-(\d+)(-[\w-]+)?$/;

/** Reads a checkpoint's `run.json`. Throws `ERR_FILE_FORMAT`. */
async function readCheckpoint(output: string, name: string): Promise<Checkpoint> {
  const folder = join(output, name);
  const progress = await readProgress(folder);
  return { folder, name, step: progress.cursor.step, lineage: readLineage(progress.line), progress };
}

/** Lists the readable checkpoints, sorted by step. */
export async function listCheckpoints(output: string): Promise<Checkpoint[]> {
  const names = (await readdir(output).catch(() => [] as string[])).filter((name) => NAME.test(name));
  const found = await Promise.all(names.map((name) => readCheckpoint(output, name).catch(() => undefined)));
  return found.filter((checkpoint) => checkpoint !== undefined).sort((a, b) => a.step - b.step);
}

/**
 * Returns the newest checkpoint of the run that `record` describes; without a record, of the run that saved last.
 *
 * Errors: `ERR_FILE_NOT_FOUND` if there is none; `ERR_FILE_FORMAT` if it is damaged, with the name of the last intact one.
 */
export async function findNewestCheckpoint(
  output: string,
  record: RunRecord | undefined,
): Promise<Checkpoint> {
  const all = await listCheckpoints(output);
  const last = all.reduce<Checkpoint | undefined>(
    (newest, checkpoint) =>
      newest !== undefined && newest.progress.saved > checkpoint.progress.saved ? newest : checkpoint,
    undefined,
  );
  const line = record?.line ?? last?.progress.line;
  const lineCheckpoints =
    line === undefined ? [] : all.filter((checkpoint) => isWithinLine(line, checkpoint));
  // A checkpoint with an unreadable run.json is found by the run's record.
  const saved = (record?.checkpoints ?? []).filter(
    (checkpoint) => existsSync(join(output, checkpoint.name)) && isWithinLine(record?.line ?? [], checkpoint),
  );
  const steps = [...lineCheckpoints, ...saved].sort((a, b) => b.step - a.step);
  const [newest] = steps;
  if (newest === undefined) throw createMissingError(output, all, record);
  return readSoundCheckpoint(output, newest.name, line as Line);
}

/** Returns the named checkpoint after verifying its files. Errors: `ERR_FILE_FORMAT`, as above. */
export async function readSoundCheckpoint(output: string, name: string, line?: Line): Promise<Checkpoint> {
  const folder = join(output, name);
  let damage: string | undefined;
  let found: Checkpoint | undefined;
  try {
    found = await readCheckpoint(output, name);
    damage = await findDamage(folder, found.progress.files);
  } catch (error) {
    damage = (error as Error).message.replace(`${folder}/`, "");
  }
  if (damage === undefined && found !== undefined) return found;
  const step = found?.step ?? Number(NAME.exec(name)?.[1] ?? Infinity);
  const before = await findSoundBefore(output, step, found?.progress.line ?? line);
  const rest =
    before === undefined
      ? `no earlier checkpoint is intact; ${startAgain()}`
      : `the last intact one is ${before.folder}; continue from it with ${optionSetting("resume", before.folder)}`;
  throw new LowrankError("ERR_FILE_FORMAT", `${folder}: the checkpoint is damaged: ${damage}; ${rest}`);
}

/** Returns the newest intact and good checkpoint of a line, up to `step`; undefined if there is none. */
export async function findLastGoodCheckpoint(
  output: string,
  line: Line,
  step: number,
): Promise<Checkpoint | undefined> {
  const all = await listCheckpoints(output);
  for (const checkpoint of all.reverse()) {
    if (checkpoint.progress.good !== true || checkpoint.step > step || !isWithinLine(line, checkpoint))
      continue;
    if ((await findDamage(checkpoint.folder, checkpoint.progress.files)) === undefined) return checkpoint;
  }
  return undefined;
}

async function findSoundBefore(
  output: string,
  step: number,
  line: Line | undefined,
): Promise<Checkpoint | undefined> {
  const all = (await listCheckpoints(output)).filter(
    (checkpoint) => checkpoint.step < step && (line === undefined || isWithinLine(line, checkpoint)),
  );
  for (const checkpoint of all.reverse())
    if ((await findDamage(checkpoint.folder, checkpoint.progress.files)) === undefined) return checkpoint;
  return undefined;
}

function startAgain(): string {
  return `start the run again in the same folder with ${optionName("overwrite")}`;
}

function createMissingError(
  output: string,
  others: Checkpoint[],
  record: RunRecord | undefined,
): LowrankError {
  const other = others.at(-1);
  const what =
    other === undefined
      ? explainMissing(output)
      : `the run has saved no checkpoint to resume from; ${other.folder} is of another run; continue from it with ${optionSetting("resume", other.folder)}`;
  const anew = other === undefined && record !== undefined ? `; ${startAgain()}` : "";
  return new LowrankError("ERR_FILE_NOT_FOUND", `${output}: ${what}${anew}`);
}

/**
 * Renames a staged checkpoint to its final name. Another run's checkpoint of that name is moved to `checkpoint-N-LINEAGE`.
 * A folder that belongs to no run stays, and the new checkpoint gets a number after its name.
 */
export async function placeCheckpoint(
  output: string,
  staging: string,
  step: number,
): Promise<{ name: string; moved?: { name: string; lineage: string } | undefined }> {
  const usualName = nameCheckpoint(step);
  const exists = existsSync(join(output, usualName));
  const found = exists ? await readCheckpoint(output, usualName).catch(() => undefined) : undefined;
  const other = found !== undefined && (await isWhollyOwn(found)) ? found : undefined;
  let moved: { name: string; lineage: string } | undefined;
  if (other !== undefined) {
    const { lineage } = other;
    moved = { name: findFreeName(output, `${usualName}-${lineage}`), lineage };
    await move(other.folder, join(output, moved.name));
  }
  const name = exists && other === undefined ? findFreeName(output, `${usualName}-2`) : usualName;
  await move(join(output, staging), join(output, name));
  await syncFolder(output);
  return moved === undefined ? { name } : { name, moved };
}

/** Returns the name, or the next numbered name that does not exist. */
function findFreeName(output: string, name: string): string {
  const [, stem = name, number = "1"] = /^(checkpoint-\d+)-(\d{1,5})$/.exec(name) ?? [];
  let n = Number(number);
  let found = name;
  while (existsSync(join(output, found))) found = `${stem}-${++n}`;
  return found;
}

/**
 * Returns the checkpoints to remove so that the newest `keep` remain. The best by held-out loss and the newest good one
 * are always kept too.
 */
export function selectSuperfluous<
  T extends { step: number; evalLoss: number | null; good?: boolean | undefined },
>(checkpoints: readonly T[], keep: number): T[] {
  const evaluated = checkpoints.filter(({ evalLoss, good }) => evalLoss !== null && good !== false);
  const least = Math.min(...evaluated.map(({ evalLoss }) => evalLoss as number));
  const best = evaluated.find(({ evalLoss }) => evalLoss === least);
  const sorted = [...checkpoints].sort((a, b) => b.step - a.step);
  const lastGood = sorted.find(({ good }) => good === true);
  const newest = sorted.slice(0, keep);
  return checkpoints.filter(
    (checkpoint) => checkpoint !== best && checkpoint !== lastGood && !newest.includes(checkpoint),
  );
}

/** Removes the files of a checkpoint, and its folder if it is empty then. */
export async function removeCheckpoint(checkpoint: Checkpoint): Promise<void> {
  let { folder } = checkpoint;
  if (await isWhollyOwn(checkpoint)) {
    // Renamed first, so that an interrupted removal leaves nothing that looks like a checkpoint.
    const aside = `${folder}.tmp-${process.pid}`;
    await move(folder, aside);
    folder = aside;
  }
  const files = Object.keys(checkpoint.progress.files);
  for (const name of [RUN, ...files]) await remove(join(folder, name));
  const below = new Set(files.filter((name) => name.includes("/")).map((name) => dirname(name)));
  // Subfolders before their parents.
  for (const name of [...below].sort((a, b) => b.length - a.length))
    await rmdir(join(folder, name)).catch(() => {});
  await rmdir(folder).catch(() => {});
}

/** Whether a checkpoint's folder contains only the checkpoint's files. */
async function isWhollyOwn({ folder, progress }: Checkpoint): Promise<boolean> {
  const names = new Set([RUN, ...Object.keys(progress.files)]);
  return (await listFiles(folder)).every((name) => names.has(name));
}
