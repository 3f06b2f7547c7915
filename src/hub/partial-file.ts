/** A file that has come in part, from which a later download goes on. */
import { createHash, randomBytes, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, readdir, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { throwIfAborted } from "../errors.js";
import type { HubFile } from "./listing.js";

/** SHA-256 of a large file, and of a small one what git calls it by: SHA-1 with the size in front. */
function hashOf({ etag, size }: HubFile): Hash {
  if (etag.length === 64) return createHash("sha256");
  return createHash("sha1").update(`blob ${size}\0`);
}

/**
 * What has come of a blob: `ETAG.lowrank-RANDOM.incomplete` beside it. Each download has a file of its own, which no
 * other writes, and takes over what one before it has left.
 */
export class PartialFile {
  /** Bytes so far. */
  size = 0;
  readonly path: string;
  readonly #file: HubFile;
  readonly #handle: FileHandle;
  readonly #hash: Hash;

  private constructor(path: string, file: HubFile, handle: FileHandle) {
    this.path = path;
    this.#file = file;
    this.#handle = handle;
    this.#hash = hashOf(file);
  }

  /** The largest that was left of a blob, read through; else an empty one. Throws what the system says. */
  static async of(blob: string, file: HubFile, signal: AbortSignal | undefined): Promise<PartialFile> {
    const path = pathFor(blob);
    const [largest, ...others] = await left(blob);
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

  /** Removes it, and gives an empty one. */
  async anew(blob: string): Promise<PartialFile> {
    await this.discard();
    const path = pathFor(blob);
    return new PartialFile(path, this.#file, await open(path, "a+"));
  }

  async append(piece: Uint8Array): Promise<void> {
    await this.#handle.appendFile(piece);
    this.#hash.update(piece);
    this.size += piece.length;
  }

  /** Whether its bytes are those that the hub lists, once there are as many; it takes no more of them. */
  isWhole(): boolean {
    return this.#hash.digest("hex") === this.#file.etag;
  }

  /** Gives it the blob's name, once it is safely on the disk. */
  async become(blob: string): Promise<void> {
    await this.#handle.sync();
    await this.close();
    await rename(this.path, blob);
  }

  /** Leaves what has come for the next; nothing where nothing has. */
  async close(): Promise<void> {
    await this.#handle.close();
    if (this.size === 0) await rm(this.path, { force: true });
  }

  async discard(): Promise<void> {
    await this.#handle.close();
    await rm(this.path, { force: true });
  }
}

function pathFor(blob: string): string {
  return `${blob}.lowrank-${randomBytes(4).toString("hex")}.incomplete`;
}

/** What earlier downloads have left of a blob, the largest first. */
async function left(blob: string): Promise<string[]> {
  const folder = dirname(blob);
  const names = (await readdir(folder)).filter(
    (name) => name.startsWith(`${basename(blob)}.lowrank-`) && name.endsWith(".incomplete"),
  );
  const sized = await Promise.all(
    names.map(async (name) => ({ path: join(folder, name), size: (await stat(join(folder, name))).size })),
  );
  return sized.toSorted((a, b) => b.size - a.size).map(({ path }) => path);
}
