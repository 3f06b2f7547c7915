/** The folder that a run writes into: locked while it runs, and changed only where it is a run's own. */
import { optionName, optionSetting } from "../../option-name.js";
import { existsSync } from "node:fs";
import { mkdir, readdir, rm, rmdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";

import { LowrankError, systemCode } from "../../errors.js";
import { shownSize } from "../../byte-size.js";
import { freeBytes, makeFolder, move, remove } from "../../folders.js";
import { LABELS, TEMPLATE, TOOLS_TEMPLATE } from "../../lora/formats/folder.js";
import { amendProgress } from "../checkpoint.js";
import { listCheckpoints, placeCheckpoint, removeCheckpoint, superfluous } from "./checkpoints.js";
import { lineageOf, within } from "./lineage.js";
import { LOCK, OutputLock } from "./lock.js";
import { manifestOf, matches, syncFolder, type Manifest } from "./manifest.js";
import { RUN } from "./run-file.js";
import { readRunRecord, writeRunRecord, type RunRecord } from "./run-record.js";

/** What a run writes of an adapter. */
const ADAPTER = ["adapter_config.json", "adapter_model.safetensors"];
/** Files of an adapter that a run may write. */
const WRITTEN = [...ADAPTER, TEMPLATE, TOOLS_TEMPLATE];
/** What a run that was killed while it saved leaves beside its place. */
const BESIDE = /^(checkpoint-\d+|adapter)\.tmp-\d+$/;
const LEFT_LOCK = /^run\.lock\.(stale-)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const LEFT_RECORD = /^run\.json\.tmp-\d+-\d+$/;
const LEFT_EVENTS = /^(events\.jsonl|metrics\.csv)\.tmp-\d+$/;

export class OutputFolder {
  readonly path: string;
  readonly #lock: OutputLock;
  /** The uppermost folder that was made for it. */
  readonly #made: string | undefined;
  /** What the folder's `run.json` says. */
  readonly #record: RunRecord | undefined;
  /** This run's, once it has begun. */
  #own: RunRecord | undefined;
  #written = false;
  #saved = false;

  private constructor(
    path: string,
    made: string | undefined,
    lock: OutputLock,
    record: RunRecord | undefined,
  ) {
    this.path = path;
    this.#made = made;
    this.#lock = lock;
    this.#record = record;
  }

  /**
   * Takes the folder for a run, and puts right what one that was killed has left.
   *
   * Errors: `ERR_OUTPUT_EXISTS` where another run writes there, or `run.json` is no run's; `ERR_WRITE`.
   */
  static async claim(path: string): Promise<OutputFolder> {
    let made: string | undefined;
    let lock: OutputLock;
    try {
      made = await makeFolder(path);
      lock = await OutputLock.take(path);
    } catch (cause) {
      if (made !== undefined) await removeEmpty(path, made);
      throw unusable(path, cause);
    }
    try {
      const record = await readRunRecord(path).catch((cause: unknown) => {
        const what = `${(cause as Error).message}; move it away, or choose another folder`;
        throw new LowrankError("ERR_OUTPUT_EXISTS", what, { cause });
      });
      const folder = new OutputFolder(path, made, lock, record);
      await folder.#recover();
      return folder;
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** What `run.json` said when the folder was taken. */
  get record(): RunRecord | undefined {
    return this.#record;
  }

  /** Whether an adapter is there that stays until this run is done. */
  get replacing(): boolean {
    const { replacing, files } = this.#begun();
    return replacing && !isEmpty(files);
  }

  /** Lineages whose checkpoints go when this run is done. */
  get replaces(): string[] {
    return this.#begun().replaces;
  }

  /** The checkpoint that was saved last. */
  get newest(): string | undefined {
    const last = this.#begun().checkpoints.at(-1);
    return last && join(this.path, last.name);
  }

  /**
   * Makes sure that a run can have the folder.
   *
   * Errors: `ERR_OUTPUT_EXISTS` where it holds an adapter or a run that may not be replaced, or files of those names
   * that no run wrote.
   */
  async checkFree(overwrite: boolean, adapter: string): Promise<void> {
    await this.checkOwn(WRITTEN, adapter);
    if (overwrite) return;
    const newest = (await listCheckpoints(this.path)).at(-1);
    if (newest === undefined && !ADAPTER.some((name) => existsSync(this.#at(name, adapter)))) return;
    const onward = newest === undefined ? "" : `continue it with ${optionName("resume")}, `;
    throw new LowrankError(
      "ERR_OUTPUT_EXISTS",
      `${this.path}: already contains a run; ${onward}replace it with ${optionName("overwrite")}, or choose another folder with ${optionName("output")}`,
    );
  }

  /** Makes sure that what will be replaced is as a run has written it. Throws `ERR_OUTPUT_EXISTS`. */
  async checkOwn(names: readonly string[] = WRITTEN, adapter = "default"): Promise<void> {
    for (const name of names) {
      const path = this.#at(name, adapter);
      if (!existsSync(path)) continue;
      const written = this.#record?.files[relativeName(name, adapter)];
      if (written !== undefined && (await matches(path, written))) continue;
      const why = written === undefined ? "is there and no run wrote it" : "was changed since a run wrote it";
      throw new LowrankError("ERR_OUTPUT_EXISTS", `${path}: ${why}; move it away, or choose another folder`);
    }
  }

  /** The same for the names of a classifier's classes. */
  checkLabels(adapter: string): Promise<void> {
    return this.checkOwn([LABELS], adapter);
  }

  /** Throws `ERR_WRITE` where the disk has no room for `bytes`, so that nothing is trained that could not be saved. */
  async checkRoom(bytes: number): Promise<void> {
    const free = await freeBytes(this.path);
    if (free === undefined || free >= bytes) return;
    const what = `what is saved there takes ${shownSize(bytes)}, and ${shownSize(free)} are free`;
    throw new LowrankError("ERR_WRITE", `${this.path}: ${what}; free some space, or choose another folder`);
  }

  #at(name: string, adapter: string): string {
    return join(this.path, relativeName(name, adapter));
  }

  /**
   * From here on the folder is this run's. A record that replaces another run's is written with the first checkpoint,
   * so that until then nothing has happened.
   */
  async begin(record: RunRecord, { replacing }: { replacing: boolean }): Promise<void> {
    this.#own = record;
    if (!replacing) await this.#write(record);
  }

  /** Writes a checkpoint by `fill` and names it, then removes what `keep` has too many of. Throws `ERR_WRITE`. */
  async saveCheckpoint(
    step: number,
    {
      evalLoss,
      keep,
      fill,
    }: { evalLoss: number | null; keep: number; fill: (folder: string) => Promise<void> },
  ): Promise<{ path: string; moved?: string | undefined }> {
    await this.#checkLock();
    const own = this.#begun();
    const beside = `checkpoint-${step}.tmp-${process.pid}`;
    const placed = await this.#staged(beside, async (folder) => {
      await fill(folder);
      await syncFolder(folder);
      return placeCheckpoint(this.path, beside, step);
    });
    this.#saved = true;
    const { name, moved } = placed;
    const kept = own.checkpoints.filter((one) => one.name !== name);
    own.checkpoints = [...kept, { name, step, lineage: lineageOf(own.line), evalLoss }];
    await this.#write(own);
    await this.#prune(keep);
    const path = join(this.path, name);
    // One of a run that is being replaced goes soon, and is no news.
    const stays = moved !== undefined && !own.replaces.includes(moved.lineage);
    return stays ? { path, moved: join(this.path, moved.name) } : { path };
  }

  /** Records whether the weights of a checkpoint are good, then removes what `keep` has too many of. Throws `ERR_WRITE`. */
  async markCheckpoint(path: string, { good, keep }: { good: boolean; keep: number }): Promise<void> {
    await this.#checkLock();
    await amendProgress(path, { good });
    await this.#prune(keep);
  }

  async #prune(keep: number): Promise<void> {
    const own = this.#begun();
    const line = (await listCheckpoints(this.path)).filter((one) => within(own.line, one));
    const gone = superfluous(
      line.map((one) => ({ ...one, evalLoss: one.progress.evalLoss, good: one.progress.good })),
      keep,
    );
    if (gone.length === 0) return;
    for (const one of gone) await removeCheckpoint(one);
    own.checkpoints = own.checkpoints.filter(({ name }) => !gone.some((one) => one.name === name));
    await this.#write(own);
  }

  /**
   * Puts an adapter that `fill` writes in its place, and removes what this run replaces. Until all of it is on the disk
   * the one that was there stays; a kill in the middle is made good by whoever takes the folder next.
   *
   * Errors: `ERR_WRITE`.
   */
  async placeAdapter(fill: (folder: string) => Promise<void>, ended: RunRecord["ended"]): Promise<void> {
    await this.#checkLock();
    const own = this.#begun();
    const before = own.files;
    const beside = `adapter.tmp-${process.pid}`;
    const files = await this.#staged(beside, async (folder) => {
      await fill(folder);
      const files = await manifestOf(folder);
      await this.#write({ ...own, files: { ...before, ...files }, placing: beside });
      return files;
    });
    this.#saved = true;
    await this.#place(beside, files);
    for (const [name, digest] of Object.entries(before)) {
      if (name in files) continue;
      if (await matches(join(this.path, name), digest)) await remove(join(this.path, name));
    }
    // One that was stopped leaves them to the run that goes on with it.
    const done = ended?.why !== "stopped";
    const replaced = new Set(done ? own.replaces : []);
    for (const one of await listCheckpoints(this.path))
      if (replaced.has(one.lineage)) await removeCheckpoint(one);
    Object.assign(own, { files, replacing: false, ...(done && { replaces: [] }), ...(ended && { ended }) });
    await this.#write(own);
  }

  /** Moves the files of a staged adapter into the folder. */
  async #place(beside: string, files: Manifest): Promise<void> {
    const from = join(this.path, beside);
    // Weights first: they may be in use, and nothing has been replaced then.
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
    // A record of nothing is of no use to anybody.
    if (this.#written && !this.#saved && this.#own?.checkpoints.length === 0 && isEmpty(this.#own.files))
      await rm(join(this.path, RUN), { force: true });
    await this.#lock.release();
    if (this.#made !== undefined) await removeEmpty(this.path, this.#made);
  }

  /** What a killed run has begun is finished where all of it is there, and removed where it isn't. */
  async #recover(): Promise<void> {
    const record = this.#record;
    if (record?.placing !== undefined) {
      await this.#place(record.placing, record.files);
      delete record.placing;
      await writeRunRecord(this.path, record);
    }
    for (const name of await readdir(this.path)) {
      if (BESIDE.test(name)) await removeKnown(join(this.path, name));
      if ([LEFT_LOCK, LEFT_RECORD, LEFT_EVENTS].some((left) => left.test(name)))
        await rm(join(this.path, name), { force: true });
    }
    for (const { folder } of await listCheckpoints(this.path))
      for (const name of await readdir(folder))
        if (LEFT_RECORD.test(name)) await rm(join(folder, name), { force: true });
  }

  /** Throws `ERR_WRITE`; what was staged is then gone. */
  async #staged<T>(beside: string, work: (folder: string) => Promise<T>): Promise<T> {
    const folder = join(this.path, beside);
    try {
      await mkdir(folder);
      return await work(folder);
    } catch (error) {
      await removeKnown(folder).catch(() => {});
      const { code, message } = error instanceof LowrankError ? error : unusable(folder, error);
      // It is told by the name that it would have had.
      const named = message.replaceAll(
        new RegExp(String.raw`([\\\\/]adapter)?\.tmp-${process.pid}`, "g"),
        "",
      );
      const last = this.newest;
      const kept =
        last === undefined || code !== "ERR_WRITE"
          ? ""
          : `; ${last} is kept; continue from it with ${optionSetting("resume", this.path)}`;
      throw new LowrankError(code, named + kept, { cause: error });
    }
  }

  async #write(record: RunRecord): Promise<void> {
    await writeRunRecord(this.path, record);
    this.#written = true;
  }

  #begun(): RunRecord {
    if (this.#own === undefined)
      throw new LowrankError("ERR_INTERNAL", `${this.path}: the run has not begun`);
    return this.#own;
  }

  async #checkLock(): Promise<void> {
    if (await this.#lock.held()) return;
    const what = `${join(this.path, LOCK)} is not this run's any more: somebody removed it, and another run may write there`;
    throw new LowrankError("ERR_OUTPUT_EXISTS", what);
  }
}

function isEmpty(files: Manifest): boolean {
  return Object.keys(files).length === 0;
}

/** Where an adapter's file lies in the folder, as a manifest writes it. */
function relativeName(name: string, adapter: string): string {
  return adapter === "default" ? name : `${adapter}/${name}`;
}

function unusable(path: string, cause: unknown): LowrankError {
  if (cause instanceof LowrankError) return cause;
  const code = systemCode(cause);
  if (code === "EEXIST" || code === "ENOTDIR") {
    const what = `${path}: is a file or lies below one, and a folder was expected`;
    return new LowrankError("ERR_OUTPUT_EXISTS", what, { cause });
  }
  const remedy = ["ENOSPC", "EDQUOT", "EFBIG"].includes(code ?? "") ? "; free some space, or" : ";";
  const what = `${path}: cannot be written (${code ?? (cause as Error).message})${remedy} choose another folder`;
  return new LowrankError("ERR_WRITE", what, { cause });
}

/** Removes folders from `path` up to `made`, as far as nothing is in them. */
async function removeEmpty(path: string, made: string): Promise<void> {
  for (let at = resolve(path); ; at = dirname(at)) {
    const gone = await rmdir(at).then(
      () => true,
      () => false,
    );
    if (!gone || at === made || at === dirname(at)) return;
  }
}

const KNOWN =
  /^(adapter_config\.json|adapter_model\.safetensors|labels\.json|chat_template\.jinja|tool_use\.jinja|optimizer\.safetensors|run\.json)(\.tmp-\d+-\d+)?$/;

/** Removes from a folder what a run writes into it, and the folder, where nothing else is in it. */
async function removeKnown(folder: string): Promise<void> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) await removeKnown(path);
    else if (KNOWN.test(entry.name)) await rm(path, { force: true });
  }
  await rmdir(folder).catch(() => {});
}
