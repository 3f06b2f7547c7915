/** The output folder of a run: locked while it runs. A run changes only files that a run wrote. */
import { optionName, optionSetting } from "../../arguments/option-name.js";
import { existsSync } from "node:fs";
import { mkdir, readdir, rm, rmdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";

import { LowrankError, readSystemCode } from "../../errors.js";
import { formatSize } from "../../arguments/byte-size.js";
import { readFreeBytes, makeFolder, move, remove } from "../../files/folders.js";
import { LABELS, TEMPLATE, TOOLS_TEMPLATE } from "../../lora/formats/folder.js";
import { amendProgress } from "./checkpoint.js";
import { listCheckpoints, placeCheckpoint, removeCheckpoint, selectSuperfluous } from "./checkpoints.js";
import { readLineage, isWithinLine } from "./lineage.js";
import { LOCK, OutputLock } from "./lock.js";
import { digestFolder, matchesDigest, syncFolder, type Manifest } from "./manifest.js";
import { nameCheckpoint } from "./resumable.js";
import { RUN } from "./run-file.js";
import { readRunRecord, writeRunRecord, type RunRecord } from "./run-record.js";

/** The files of an adapter. */
const ADAPTER = ["adapter_config.json", "adapter_model.safetensors"];
/** The files of an adapter, with the chat templates that a run may add. */
const WRITTEN = [...ADAPTER, TEMPLATE, TOOLS_TEMPLATE];
/** Staging folders that a killed run leaves. */
const STAGING = /^(checkpoint-\d+|adapter)\.tmp-\d+$/;
const LEFT_LOCK = /^run\.lock\.(stale-)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const LEFT_RECORD = /^run\.json\.tmp-\d+-\d+$/;
const LEFT_EVENTS = /^(events\.jsonl|metrics\.csv)\.tmp-\d+$/;

export class OutputFolder {
  /** Whether this process writes into the folder. */
  readonly writes: boolean = true;
  readonly path: string;
  readonly #lock: OutputLock;
  /** The topmost folder that was created for it. */
  readonly #createdFolder: string | undefined;
  /** The record in the folder's `run.json` before this run. */
  readonly #record: RunRecord | undefined;
  /** This run's record, once it has begun. */
  #runRecord: RunRecord | undefined;
  #written = false;
  #saved = false;

  private constructor(
    path: string,
    created: string | undefined,
    lock: OutputLock,
    record: RunRecord | undefined,
  ) {
    this.path = path;
    this.#createdFolder = created;
    this.#lock = lock;
    this.#record = record;
  }

  /**
   * Acquires the folder for a run, and completes or removes the unfinished work of a killed run.
   *
   * Errors: `ERR_OUTPUT_EXISTS` if another run writes there, or if `run.json` is not a run's; `ERR_WRITE`.
   */
  static async claim(path: string): Promise<OutputFolder> {
    let created: string | undefined;
    let lock: OutputLock;
    try {
      created = await makeFolder(path);
      lock = await OutputLock.take(path);
    } catch (cause) {
      if (created !== undefined) await removeEmpty(path, created);
      throw createUnusableError(path, cause);
    }
    try {
      const record = await readRunRecord(path).catch((cause: unknown) => {
        const what = `${(cause as Error).message}; move it away, or choose another folder`;
        throw new LowrankError("ERR_OUTPUT_EXISTS", what, { cause });
      });
      const folder = new OutputFolder(path, created, lock, record);
      await folder.#recover();
      return folder;
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** The record in `run.json` before this run. */
  get record(): RunRecord | undefined {
    return this.#record;
  }

  /** Whether the folder contains an adapter that is kept until this run is done. */
  get replacing(): boolean {
    const { replacing, files } = this.#requireOwn();
    return replacing && !isEmpty(files);
  }

  /** Lineages with checkpoints that are removed when this run is done. */
  get replaces(): string[] {
    return this.#requireOwn().replaces;
  }

  /** The folder of the last saved checkpoint. */
  get newest(): string | undefined {
    const last = this.#requireOwn().checkpoints.at(-1);
    return last && join(this.path, last.name);
  }

  /**
   * Checks that a new run may use the folder.
   *
   * Errors: `ERR_OUTPUT_EXISTS` if it contains an adapter or a run and `overwrite` is not given, or files of those names
   * that no run wrote.
   */
  async checkFree(overwrite: boolean, adapter: string): Promise<void> {
    await this.checkOwn(WRITTEN, adapter);
    if (overwrite) return;
    const newest = (await listCheckpoints(this.path)).at(-1);
    if (newest === undefined && !ADAPTER.some((name) => existsSync(this.#resolve(name, adapter)))) return;
    const onward = newest === undefined ? "" : `continue it with ${optionName("resume")}, `;
    throw new LowrankError(
      "ERR_OUTPUT_EXISTS",
      `${this.path}: already contains a run; ${onward}replace it with ${optionName("overwrite")}, or choose another folder with ${optionName("output")}`,
    );
  }

  /** Checks that files to be replaced are unchanged since a run wrote them. Throws `ERR_OUTPUT_EXISTS`. */
  async checkOwn(names: readonly string[] = WRITTEN, adapter = "default"): Promise<void> {
    for (const name of names) {
      const path = this.#resolve(name, adapter);
      if (!existsSync(path)) continue;
      const written = this.#record?.files[resolveRelativeName(name, adapter)];
      if (written !== undefined && (await matchesDigest(path, written))) continue;
      const why = written === undefined ? "was not written by a run" : "was changed since a run wrote it";
      throw new LowrankError("ERR_OUTPUT_EXISTS", `${path}: ${why}; move it away, or choose another folder`);
    }
  }

  /** Performs the same check for the file of a classifier's class names. */
  checkLabels(adapter: string): Promise<void> {
    return this.checkOwn([LABELS], adapter);
  }

  /** Throws `ERR_WRITE` if the disk has less than `bytes` free, before training is wasted. */
  async checkRoom(bytes: number): Promise<void> {
    const free = await readFreeBytes(this.path);
    if (free === undefined || free >= bytes) return;
    const what = `the run saves ${formatSize(bytes)} there, and ${formatSize(free)} are free`;
    throw new LowrankError("ERR_WRITE", `${this.path}: ${what}; free some space, or choose another folder`);
  }

  #resolve(name: string, adapter: string): string {
    return join(this.path, resolveRelativeName(name, adapter));
  }

  /**
   * Starts a run in the folder. A record that replaces another run's is written only with the first checkpoint or
   * adapter, so that the folder is unchanged until then.
   */
  async begin(record: RunRecord, { replacing }: { replacing: boolean }): Promise<void> {
    this.#runRecord = record;
    if (!replacing) await this.#write(record);
  }

  /** Writes a checkpoint by `fill`, renames it into place, then removes old ones according to `keep`. Throws `ERR_WRITE`. */
  async saveCheckpoint(
    step: number,
    {
      evalLoss,
      keep,
      fill,
    }: { evalLoss: number | null; keep: number; fill: (folder: string) => Promise<void> },
  ): Promise<{ path: string; moved?: string | undefined }> {
    await this.#checkLock();
    const record = this.#requireOwn();
    const staging = `${nameCheckpoint(step)}.tmp-${process.pid}`;
    const placement = await this.#stage(staging, async (folder) => {
      await fill(folder);
      await syncFolder(folder);
      return placeCheckpoint(this.path, staging, step);
    });
    this.#saved = true;
    const { name, moved } = placement;
    const others = record.checkpoints.filter((checkpoint) => checkpoint.name !== name);
    record.checkpoints = [...others, { name, step, lineage: readLineage(record.line), evalLoss }];
    await this.#write(record);
    await this.#prune(keep);
    const path = join(this.path, name);
    // A moved checkpoint of a run that is being replaced is removed soon, and not reported.
    const stays = moved !== undefined && !record.replaces.includes(moved.lineage);
    return stays ? { path, moved: join(this.path, moved.name) } : { path };
  }

  /** Records whether a checkpoint is good, then removes old ones according to `keep`. Throws `ERR_WRITE`. */
  async markCheckpoint(path: string, { good, keep }: { good: boolean; keep: number }): Promise<void> {
    await this.#checkLock();
    await amendProgress(path, { good });
    await this.#prune(keep);
  }

  async #prune(keep: number): Promise<void> {
    const record = this.#requireOwn();
    const line = (await listCheckpoints(this.path)).filter((checkpoint) =>
      isWithinLine(record.line, checkpoint),
    );
    const gone = selectSuperfluous(
      line.map((checkpoint) => ({
        ...checkpoint,
        evalLoss: checkpoint.progress.evalLoss,
        good: checkpoint.progress.good,
      })),
      keep,
    );
    if (gone.length === 0) return;
    for (const checkpoint of gone) await removeCheckpoint(checkpoint);
    record.checkpoints = record.checkpoints.filter(
      ({ name }) => !gone.some((removed) => removed.name === name),
    );
    await this.#write(record);
  }

  /**
   * Puts the adapter that `fill` writes into the folder, and removes the files that this run replaces. The previous
   * adapter stays until all of the new one is on the disk; `claim` completes an interrupted replacement.
   *
   * Errors: `ERR_WRITE`.
   */
  async placeAdapter(fill: (folder: string) => Promise<void>, ended: RunRecord["ended"]): Promise<void> {
    await this.#checkLock();
    const record = this.#requireOwn();
    const before = record.files;
    const staging = `adapter.tmp-${process.pid}`;
    const files = await this.#stage(staging, async (folder) => {
      await fill(folder);
      const files = await digestFolder(folder);
      await this.#write({ ...record, files: { ...before, ...files }, placing: staging });
      return files;
    });
    this.#saved = true;
    await this.#moveFiles(staging, files);
    for (const [name, digest] of Object.entries(before)) {
      if (name in files) continue;
      if (await matchesDigest(join(this.path, name), digest)) await remove(join(this.path, name));
    }
    // A stopped run leaves their removal to the run that resumes it.
    const done = ended?.why !== "stopped";
    const replaced = new Set(done ? record.replaces : []);
    for (const checkpoint of await listCheckpoints(this.path))
      if (replaced.has(checkpoint.lineage)) await removeCheckpoint(checkpoint);
    Object.assign(record, {
      files,
      replacing: false,
      ...(done && { replaces: [] }),
      ...(ended && { ended }),
    });
    await this.#write(record);
  }

  /** Moves the files of a staged adapter into the folder. */
  async #moveFiles(staging: string, files: Manifest): Promise<void> {
    const from = join(this.path, staging);
    // Weights first: if they are in use, the move fails before anything is replaced.
    const weights = (name: string): number => Number(name.endsWith(".safetensors"));
    for (const name of Object.keys(files).sort((a, b) => weights(b) - weights(a))) {
      if (!existsSync(join(from, name))) continue;
      await mkdir(dirname(join(this.path, name)), { recursive: true });
      await move(join(from, name), join(this.path, name));
    }
    await syncFolder(this.path);
    await removeKnown(from);
  }

  async release(): Promise<void> {
    // A record of a run that saved nothing is useless.
    if (
      this.#written &&
      !this.#saved &&
      this.#runRecord?.checkpoints.length === 0 &&
      isEmpty(this.#runRecord.files)
    )
      await rm(join(this.path, RUN), { force: true });
    await this.#lock.release();
    if (this.#createdFolder !== undefined) await removeEmpty(this.path, this.#createdFolder);
  }

  /** Completes the unfinished work of a killed run if all of its files are there, otherwise removes it. */
  async #recover(): Promise<void> {
    const record = this.#record;
    if (record?.placing !== undefined) {
      await this.#moveFiles(record.placing, record.files);
      delete record.placing;
      await writeRunRecord(this.path, record);
    }
    for (const name of await readdir(this.path)) {
      if (STAGING.test(name)) await removeKnown(join(this.path, name));
      if ([LEFT_LOCK, LEFT_RECORD, LEFT_EVENTS].some((left) => left.test(name)))
        await rm(join(this.path, name), { force: true });
    }
    for (const { folder } of await listCheckpoints(this.path))
      for (const name of await readdir(folder))
        if (LEFT_RECORD.test(name)) await rm(join(folder, name), { force: true });
  }

  /** Runs `work` on a staging folder. Throws `ERR_WRITE`, after removing the folder. */
  async #stage<T>(staging: string, work: (folder: string) => Promise<T>): Promise<T> {
    const folder = join(this.path, staging);
    try {
      await mkdir(folder);
      return await work(folder);
    } catch (error) {
      await removeKnown(folder).catch(() => {});
      const { code, message } = error instanceof LowrankError ? error : createUnusableError(folder, error);
      // The message names the final path instead of the staging path.
      const named = message.replaceAll(
        new RegExp(String.raw`([\\\\/]adapter)?\.tmp-${process.pid}`, "g"),
        "",
      );
      const last = this.newest;
      const remedy =
        last === undefined || code !== "ERR_WRITE"
          ? ""
          : `; ${last} is kept; continue from it with ${optionSetting("resume", this.path)}`;
      throw new LowrankError(code, named + remedy, { cause: error });
    }
  }

  async #write(record: RunRecord): Promise<void> {
    await writeRunRecord(this.path, record);
    this.#written = true;
  }

  #requireOwn(): RunRecord {
    if (this.#runRecord === undefined)
      throw new LowrankError("ERR_INTERNAL", `${this.path}: the run has not begun`);
    return this.#runRecord;
  }

  async #checkLock(): Promise<void> {
    if (await this.#lock.isHeld()) return;
    const what = `${join(this.path, LOCK)} no longer belongs to this run: it was removed, and another run may write there`;
    throw new LowrankError("ERR_OUTPUT_EXISTS", what);
  }
}

function isEmpty(files: Manifest): boolean {
  return Object.keys(files).length === 0;
}

/** Returns the path of an adapter's file relative to the folder, as a manifest writes it. */
function resolveRelativeName(name: string, adapter: string): string {
  return adapter === "default" ? name : `${adapter}/${name}`;
}

/** Returns the error for a folder that cannot be made or written. */
export function createUnusableError(path: string, cause: unknown): LowrankError {
  if (cause instanceof LowrankError) return cause;
  const code = readSystemCode(cause);
  if (code === "EEXIST" || code === "ENOTDIR") {
    const what = `${path}: is a file or below one; a folder was expected`;
    return new LowrankError("ERR_OUTPUT_EXISTS", what, { cause });
  }
  const remedy = ["ENOSPC", "EDQUOT", "EFBIG"].includes(code ?? "") ? "; free some space, or" : ";";
  const what = `${path}: cannot be written (${code ?? (cause as Error).message})${remedy} choose another folder`;
  return new LowrankError("ERR_WRITE", what, { cause });
}

/** Removes empty folders from `path` up to `created`. */
export async function removeEmpty(path: string, created: string): Promise<void> {
  for (let current = resolve(path); ; current = dirname(current)) {
    const gone = await rmdir(current).then(
      () => true,
      () => false,
    );
    if (!gone || current === created || current === dirname(current)) return;
  }
}

const KNOWN =
  /^(adapter_config\.json|adapter_model\.safetensors|labels\.json|chat_template\.jinja|tool_use\.jinja|optimizer\.safetensors|run\.json)(\.tmp-\d+-\d+)?$/;

/** Removes the files of a run from a folder, and the folder if it is empty then. */
async function removeKnown(folder: string): Promise<void> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) await removeKnown(path);
    else if (KNOWN.test(entry.name)) await rm(path, { force: true });
  }
  await rmdir(folder).catch(() => {});
}
