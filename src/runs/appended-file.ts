/** A file that grows during a run: created as a staging file, renamed into place, and appended to. */
import { open, rename, rm, type FileHandle } from "node:fs/promises";

/** The maximum number of bytes that wait for the disk. Beyond it, writing fails permanently. */
const LONGEST_WAIT = 16 * 2 ** 20;
/** The minimum milliseconds between two writes, so that short steps share a write. */
const GATHER_MS = 100;

/**
 * Appended bytes are written in the background and in sequence, so that `append` never waits. The first failure is
 * reported, and nothing is written after it.
 */
export class AppendedFile {
  readonly #place: string;
  readonly #staging: string;
  readonly #onFailure: (error: NodeJS.ErrnoException) => void;
  #handle: FileHandle | undefined;
  #isInPlace = false;
  #failed = false;
  #waiting: Uint8Array[] = [];
  #bytes = 0;
  #writing: Promise<void> | undefined;
  #lastWrite = -Infinity;
  /** Whether `flush` is waiting. */
  #isFlushing = false;
  #wake: () => void = () => {};

  /** `place` is the final path; `onFailure` is called with the first error. */
  constructor(place: string, onFailure: (error: NodeJS.ErrnoException) => void) {
    this.#place = place;
    this.#staging = `${place}.tmp-${process.pid}`;
    this.#onFailure = onFailure;
  }

  /** The current path: the staging file's until `moveIntoPlace`. */
  get path(): string {
    return this.#isInPlace ? this.#place : this.#staging;
  }

  /** Creates the staging file with the content that `fill` writes. */
  async begin(fill: (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>): Promise<void> {
    await this.#attempt(async () => {
      this.#handle = await open(this.#staging, "w");
      const handle = this.#handle;
      await fill(async (bytes) => void (await handle.writeFile(bytes)));
    });
  }

  /** Renames the staging file to its final path, over an existing file. Closed meanwhile, as Windows requires. */
  async moveIntoPlace(): Promise<void> {
    if (this.#isInPlace) return;
    await this.flush();
    await this.#attempt(async () => {
      await this.#handle?.sync();
      await this.#handle?.close();
      this.#handle = undefined;
      await rename(this.#staging, this.#place);
      this.#isInPlace = true;
      this.#handle = await open(this.#place, "a");
    });
  }

  append(bytes: Uint8Array): void {
    if (this.#failed) return;
    if (this.#bytes + bytes.length > LONGEST_WAIT) {
      this.#fail(Object.assign(new Error("the disk does not respond"), { code: "ETIMEDOUT" }));
      return;
    }
    this.#waiting.push(bytes);
    this.#bytes += bytes.length;
    this.#writing ??= this.#write();
  }

  /** Resolves when all bytes appended so far are in the file. */
  async flush(): Promise<void> {
    while (this.#writing !== undefined) {
      this.#isFlushing = true;
      this.#wake();
      await this.#writing;
    }
    this.#isFlushing = false;
  }

  async close(): Promise<void> {
    await this.flush();
    await this.#handle?.close().catch(() => {});
    this.#handle = undefined;
    if (this.#failed && !this.#isInPlace) await rm(this.#staging, { force: true }).catch(() => {});
  }

  /** Closes the file and removes it. */
  async discard(): Promise<void> {
    await this.close();
    await rm(this.path, { force: true }).catch(() => {});
  }

  async #write(): Promise<void> {
    // Appends in the same turn of the event loop share a write.
    await Promise.resolve();
    while (this.#waiting.length > 0 && !this.#failed) {
      await this.#waitForWrite();
      const bytes =
        this.#waiting.length === 1 ? (this.#waiting[0] as Uint8Array) : Buffer.concat(this.#waiting);
      this.#waiting = [];
      await this.#attempt(async () => void (await this.#handle?.writeFile(bytes)));
      this.#bytes -= bytes.length;
      this.#lastWrite = performance.now();
    }
    this.#writing = undefined;
  }

  /** Waits until the next write is due. */
  async #waitForWrite(): Promise<void> {
    const rest = this.#lastWrite + GATHER_MS - performance.now();
    if (rest <= 0 || this.#isFlushing) return;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      timer = setTimeout(resolve, rest);
    });
    clearTimeout(timer);
  }

  async #attempt(work: () => Promise<void>): Promise<void> {
    if (this.#failed) return;
    try {
      await work();
    } catch (error) {
      this.#fail(error as NodeJS.ErrnoException);
    }
  }

  #fail(error: NodeJS.ErrnoException): void {
    this.#failed = true;
    this.#waiting = [];
    this.#bytes = 0;
    this.#onFailure(error);
  }
}
