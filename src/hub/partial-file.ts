/** A partially downloaded file, which a later download continues. */
import { createHash, randomBytes, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, readdir, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { throwIfAborted } from "../errors.js";
import type { HubFile } from "./listing.js";

/** Returns the hash of a file's ETag: SHA-256, or for a small file git's SHA-1, which includes the size. */
function createHashOf({ etag, size }: HubFile): Hash {
  if (etag.length === 64) return createHash("sha256");
  return createHash("sha1").update(`blob ${size}\0`);
}

/**
 * The received part of a blob, `ETAG.lowrank-RANDOM.incomplete` next to it. Each download writes a separate file, and
 * takes over the file of an earlier one.
 */
export class PartialFile {
  /** Bytes received so far. */
  size = 0;
  readonly path: string;
  readonly #file: HubFile;
  readonly #handle: FileHandle;
  readonly #hash: Hash;

  private constructor(path: string, file: HubFile, handle: FileHandle) {
    this.path = path;
    this.#file = file;
    this.#handle = handle;
    this.#hash = createHashOf(file);
  }

  /** Opens and hashes the largest partial file of a blob, or an empty one. Throws system errors. */
  static async open(blob: string, file: HubFile, signal: AbortSignal | undefined): Promise<PartialFile> {
    const path = resolvePath(blob);
    const [largest, ...others] = await listPartialFiles(blob);
    for (const other of others) await rm(other, { force: true });
    if (largest !== undefined) await rename(largest, path).catch(() => {});
    const partial = new PartialFile(path, file, await open(path, "a+"));
    try {
      for await (const piece of createReadStream(path, { highWaterMark: 1 << 20 })) {
        throwIfAborted(signal);
        partial.#hash.update(piece as Buffer);
        partial.size += (piece as Buffer).length;
      }
    } catch (error) {
      await partial.close();
      throw error;
    }
    return partial;
  }

  /** Removes the file and returns an empty one. */
  async reset(blob: string): Promise<PartialFile> {
    await this.discard();
    const path = resolvePath(blob);
    return new PartialFile(path, this.#file, await open(path, "a+"));
  }

  async append(piece: Uint8Array): Promise<void> {
    await this.#handle.appendFile(piece);
    this.#hash.update(piece);
    this.size += piece.length;
  }

  /** Whether the complete file has the hash of the hub's listing. No bytes can be appended afterwards. */
  isWhole(): boolean {
    return this.#hash.digest("hex") === this.#file.etag;
  }

  /** Flushes the file to the disk and renames it to the blob's name. */
  async moveTo(blob: string): Promise<void> {
    await this.#handle.sync();
    await this.close();
    await rename(this.path, blob);
  }

  /** Closes the file and keeps it for a later download; removes an empty file. */
  async close(): Promise<void> {
    await this.#handle.close();
    if (this.size === 0) await rm(this.path, { force: true });
  }

  async discard(): Promise<void> {
    await this.#handle.close();
    await rm(this.path, { force: true });
  }
}

function resolvePath(blob: string): string {
  return `${blob}.lowrank-${randomBytes(4).toString("hex")}.incomplete`;
}

/** Lists the partial files of a blob, the largest first. */
async function listPartialFiles(blob: string): Promise<string[]> {
  const folder = dirname(blob);
  const names = (await readdir(folder)).filter(
    (name) => name.startsWith(`${basename(blob)}.lowrank-`) && name.endsWith(".incomplete"),
  );
  const sized = await Promise.all(
    names.map(async (name) => ({ path: join(folder, name), size: (await stat(join(folder, name))).size })),
  );
  return sized.toSorted((a, b) => b.size - a.size).map(({ path }) => path);
}
