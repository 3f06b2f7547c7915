/** Downloads one file from the hub into the cache; resumes partial downloads and verifies the content. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

import { LowrankError } from "../errors.js";
import { readFreeBytes, makeFolder } from "../files/folders.js";
import type { CachedRepo } from "./cache.js";
import { convertWriteError, Passing } from "./failures.js";
import type { HubFile } from "./listing.js";
import { runWithLock } from "./lock.js";
import { PartialFile } from "./partial-file.js";
import { ask, convertBodyError, retryPersistently } from "./request.js";
import type { HubSettings } from "./settings.js";

/**
 * Downloads a file's blob into the cache if necessary; reports its size so far to `arrived`. A failed download keeps the
 * received bytes, unless they differ from the hub's listing.
 *
 * Throws `ERR_HUB`, `ERR_WRITE`, `Passing`, the signal's reason.
 */
export async function download(
  settings: HubSettings,
  cached: CachedRepo,
  commit: string,
  file: HubFile,
  arrived: (bytes: number) => void,
): Promise<void> {
  const blob = cached.locateBlob(file.etag);
  if (existsSync(blob)) return arrived(file.size);
  const { signal } = settings;
  try {
    for (const folder of [dirname(blob), cached.locks]) await makeFolder(folder);
    await runWithLock(join(cached.locks, `${file.etag}.lowrank`), signal, async () => {
      if (existsSync(blob)) return;
      const fetching = new Fetching(settings, cached.repo, commit, file, arrived);
      await fetching.fetchInto(blob);
    });
  } catch (error) {
    throw signal?.aborted ? error : convertWriteError(blob, error);
  }
  arrived(file.size);
}

/** The download of one file, in as many requests as necessary. */
class Fetching {
  /** The ETag of the last response; a continued download must have the same. */
  #validator: string | undefined;

  constructor(
    private readonly settings: HubSettings,
    private readonly repo: string,
    private readonly commit: string,
    private readonly file: HubFile,
    private readonly arrived: (bytes: number) => void,
  ) {}

  async fetchInto(blob: string): Promise<void> {
    let partial = await PartialFile.open(blob, this.file, this.settings.signal);
    try {
      if (partial.size > this.file.size) partial = await partial.reset(blob);
      await this.#checkSpace(blob, partial.size);
      await retryPersistently(
        this.settings,
        async () => {
          if (partial.size === this.file.size) return;
          const { response, alive, done } = await this.#ask(partial.size);
          try {
            // A server that ignores ranges, or has other content by now, sends the whole file.
            if (partial.size > 0 && response.status !== 206) partial = await partial.reset(blob);
            await this.#read(response, partial, alive);
          } finally {
            done();
          }
        },
        { progress: () => partial.size, begun: true },
      );
    } catch (error) {
      await partial.close();
      throw error;
    }
    if (!partial.isWhole()) {
      await partial.discard();
      throw new LowrankError(
        "ERR_HUB",
        `${this.repo}: ${this.file.name} was received damaged (its hash is not ${this.file.etag}); it was removed: try again`,
      );
    }
    await partial.moveTo(blob);
  }

  /** Throws `ENOSPC` if the disk has no room for the remaining bytes. */
  async #checkSpace(blob: string, has: number): Promise<void> {
    const free = await readFreeBytes(dirname(blob));
    if (free === undefined || free >= this.file.size - has) return;
    throw Object.assign(new Error("no space left"), { code: "ENOSPC" });
  }

  /** Requests the file from a byte offset. */
  async #ask(from: number): ReturnType<typeof ask> {
    const { settings, repo, commit, file } = this;
    const url = `${settings.endpoint}/${repo}/resolve/${commit}/${encodeURIComponent(file.name)}`;
    // Without compression, because ranges of compressed data are not ranges of the file.
    const headers: Record<string, string> = { "accept-encoding": "identity" };
    if (from > 0) headers["range"] = `bytes=${from}-`;
    if (from > 0 && this.#validator !== undefined) headers["if-range"] = this.#validator;
    const answer = await ask(settings, { repo, revision: commit }, url, headers);
    const { response } = answer;
    const range = response.headers.get("content-range");
    if (response.status === 206 && !range?.startsWith(`bytes ${from}-`)) {
      answer.done();
      await response.body?.cancel();
      throw new LowrankError(
        "ERR_HUB",
        `${repo}: ${file.name}: the server sent another part (${range}) than requested (from byte ${from})`,
      );
    }
    const etag = response.headers.get("etag");
    // A weak ETag does not identify bytes.
    this.#validator = etag?.startsWith('"') ? etag : undefined;
    return answer;
  }

  async #read({ body }: Response, partial: PartialFile, alive: () => void): Promise<void> {
    const { settings, file } = this;
    const pieces = body?.[Symbol.asyncIterator]();
    for (;;) {
      const next = await pieces?.next().catch((error: unknown) => {
        throw convertBodyError(settings, error);
      });
      if (next === undefined || next.done === true) break;
      alive();
      const room = file.size - partial.size;
      await partial.append(next.value.subarray(0, room));
      this.arrived(partial.size);
      if (next.value.length > room) {
        await pieces?.return?.();
        throw new LowrankError(
          "ERR_HUB",
          `${this.repo}: ${file.name} is longer than the ${file.size} bytes that the hub lists`,
        );
      }
    }
    if (partial.size < file.size) throw new Passing(`the connection to ${settings.endpoint} was cut`);
  }
}
