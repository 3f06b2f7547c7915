/**
 * The cache that Hugging Face's libraries share. Each repository has `blobs/`, the files by the hash in the hub's ETag;
 * `snapshots/COMMIT/`, the files by name, as links to blobs; and `refs/`, the last known commit of each branch or tag.
 */
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import { copyFile, link, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";

import { makeFolder } from "../files/folders.js";
import { LowrankError, readSystemCode } from "../errors.js";
import { DEFAULT_REVISION, isCommit } from "./name.js";

/** The file of the model's configuration. */
export const CONFIG = "config.json";
/** The file of the weights, if there is only one. */
export const WEIGHTS = "model.safetensors";
/** The file that maps tensors to weight files, if there are several. */
export const INDEX = "model.safetensors.index.json";

/** Creates a link or copy of `blob` at `pointer`. */
export type Pointing = (blob: string, pointer: string) => Promise<void>;

const linkByName: Pointing = (blob, pointer) => symlink(relative(dirname(pointer), blob), pointer);

/** Returns the ways to try, in this sequence: Windows denies symbolic links to most users, some file systems all links. */
export function listWaysToPoint(withoutSymlinks: boolean): readonly Pointing[] {
  return [...(withoutSymlinks ? [] : [linkByName]), link, copyFile];
}

/** A model in the cache. */
export class CachedRepo {
  /** The repository's folder. */
  readonly folder: string;
  /** The folder of the locks of its files. */
  readonly locks: string;

  constructor(
    cacheDir: string,
    readonly repo: string,
  ) {
    const name = `models--${repo.replace("/", "--")}`;
    this.folder = join(cacheDir, name);
    this.locks = join(cacheDir, ".locks", name);
  }

  locateBlob(etag: string): string {
    return join(this.folder, "blobs", etag);
  }

  locateSnapshot(commit: string): string {
    return join(this.folder, "snapshots", commit);
  }

  /** Returns the last known commit of a revision; undefined if unknown. */
  readCommit(revision: string = DEFAULT_REVISION): string | undefined {
    if (isCommit(revision)) return existsSync(this.locateSnapshot(revision)) ? revision : undefined;
    try {
      const commit = readFileSync(join(this.folder, "refs", revision), "utf8").trim();
      return isCommit(commit) ? commit : undefined;
    } catch {
      return undefined;
    }
  }

  /** Records the commit of a revision. */
  async writeRef(revision: string = DEFAULT_REVISION, commit: string): Promise<void> {
    if (isCommit(revision) || this.readCommit(revision) === commit) return;
    const file = join(this.folder, "refs", revision);
    await makeFolder(dirname(file));
    await replaceFile(file, (temporary) => writeFile(temporary, commit));
  }

  /** Whether a snapshot contains a file of this size, directly or by a link. */
  has(commit: string, { name, size }: { name: string; size: number }): boolean {
    return statSync(join(this.locateSnapshot(commit), name), { throwIfNoEntry: false })?.size === size;
  }

  /** Adds a blob to a snapshot under its name. */
  async addBlob(etag: string, commit: string, name: string, ways: readonly Pointing[]): Promise<void> {
    const [blob, pointer] = [this.locateBlob(etag), join(this.locateSnapshot(commit), name)];
    await makeFolder(dirname(pointer));
    await replaceFile(pointer, async (temporary) => {
      for (const [i, way] of ways.entries()) {
        try {
          return await way(blob, temporary);
        } catch (error) {
          if (i === ways.length - 1 || readSystemCode(error) === "ENOSPC") throw error;
          await rm(temporary, { force: true });
        }
      }
    });
  }

  /** Returns the name of a missing file that loading needs; undefined if the snapshot is complete. */
  async findMissing(commit: string): Promise<string | undefined> {
    const has = (name: string): boolean => existsSync(join(this.locateSnapshot(commit), name));
    if (!has(CONFIG)) return CONFIG;
    if (has(WEIGHTS)) return undefined;
    if (!has(INDEX)) return WEIGHTS;
    return (await listShards(this.repo, join(this.locateSnapshot(commit), INDEX))).find((name) => !has(name));
  }
}

/** Writes a staging file or link and renames it, so that no reader sees it incomplete. */
async function replaceFile(file: string, write: (temporary: string) => Promise<void>): Promise<void> {
  const temporary = `${file}.${randomBytes(4).toString("hex")}.tmp`;
  try {
    await write(temporary);
    await rename(temporary, file);
  } finally {
    await rm(temporary, { force: true });
  }
}

/** Returns the files that an index names, without duplicates. Throws `ERR_FILE_FORMAT`. */
export async function listShards(repo: string, index: string): Promise<string[]> {
  let map: unknown;
  try {
    map = (JSON.parse(await readFile(index, "utf8")) as { weight_map?: unknown }).weight_map;
  } catch {
    // The error is thrown below.
  }
  const names = typeof map === "object" && map !== null ? [...new Set<unknown>(Object.values(map))] : [];
  const isFileName = (name: unknown): name is string =>
    typeof name === "string" && /^\w[\w.-]*\.safetensors$/.test(name);
  if (names.length > 0 && names.every(isFileName)) return names;
  throw new LowrankError("ERR_FILE_FORMAT", `${repo}: ${INDEX} does not say which files hold the weights`);
}
