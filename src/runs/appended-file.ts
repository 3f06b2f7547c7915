/** A file that grows while a run goes on: begun whole beside its place, renamed into it, and appended to. */
import { open, rename, rm, type FileHandle } from "node:fs/promises";

/** Bytes that may wait for a disk that takes none; what comes then is left out. */
const LONGEST_WAIT = 16 * 2 ** 20;
/** Milliseconds from a write to the next: what comes meanwhile is one, so that short steps are not a write each. */
const GATHER_MS = 100;

/**
 * What is appended is written in the background, in order, so that whoever appends never waits. A disk that refuses it
 * is told once, and nothing is written from then on.
 */
export class AppendedFile {
  readonly #place: string;
  readonly #beside: string;
  readonly #onFailure: (error: NodeJS.ErrnoException) => void;
  #handle: FileHandle | undefined;
  #placed = false;
  #failed = false;
  #waiting: Uint8Array[] = [];
  #bytes = 0;
  #writing: Promise<void> | undefined;
  #written = -Infinity;
  /** Whether somebody waits for what is written. */
  #asked = false;
  #wake: () => void = () => {};

  /** `place` is the name that it will have; `onFailure` hears of the first thing that cannot be written. */
  constructor(place: string, onFailure: (error: NodeJS.ErrnoException) => void) {
    this.#place = place;
    this.#beside = `${place}.tmp-${process.pid}`;
    this.#onFailure = onFailure;
  }

  /** Where it lies now: beside its place until `moveIntoPlace`. */
  get path(): string {
    return this.#placed ? this.#place : this.#beside;
  }

  /** Begins it beside its place with what `fill` writes. */
  async begin(fill: (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>): Promise<void> {
    await this.#attempt(async () => {
      this.#handle = await open(this.#beside, "w");
      const handle = this.#handle;
      await fill(async (bytes) => void (await handle.writeFile(bytes)));
    });
  }

  /** Puts it in its place, over what is there. Windows renames no file that is open. */
  async moveIntoPlace(): Promise<void> {
    if (this.#placed) return;
    await this.flush();
    await this.#attempt(async () => {
      await this.#handle?.sync();
      await this.#handle?.close();
      this.#handle = undefined;
      await rename(this.#beside, this.#place);
      this.#placed = true;
      this.#handle = await open(this.#place, "a");
    });
  }

  append(bytes: Uint8Array): void {
    if (this.#failed) return;
    if (this.#bytes + bytes.length > LONGEST_WAIT) {
      this.#fail(Object.assign(new Error("the disk takes nothing"), { code: "ETIMEDOUT" }));
      return;
    }
    this.#waiting.push(bytes);
    this.#bytes += bytes.length;
    this.#writing ??= this.#write();
  }

  /** Resolves when all that was appended so far is in the file. */
  async flush(): Promise<void> {
    while (this.#writing !== undefined) {
      this.#asked = true;
      this.#wake();
      await this.#writing;
    }
    this.#asked = false;
  }

  async close(): Promise<void> {
    await this.flush();
    await this.#handle?.close().catch(() => {});
    this.#handle = undefined;
    if (this.#failed && !this.#placed) await rm(this.#beside, { force: true }).catch(() => {});
  }

  /** Closes it and removes it, wherever it lies. */
  async discard(): Promise<void> {
    await this.close();
    await rm(this.path, { force: true }).catch(() => {});
  }

  async #write(): Promise<void> {
    // What comes in one turn of the event loop is one write.
    await Promise.resolve();
    while (this.#waiting.length > 0 && !this.#failed) {
      await this.#gathered();
      const bytes =
        this.#waiting.length === 1 ? (this.#waiting[0] as Uint8Array) : Buffer.concat(this.#waiting);
      this.#waiting = [];
      await this.#attempt(async () => void (await this.#handle?.writeFile(bytes)));
      this.#bytes -= bytes.length;
      this.#written = performance.now();
    }
    this.#writing = undefined;
  }

  /** Resolves when it is time for the next write. */
  async #gathered(): Promise<void> {
    const rest = this.#written + GATHER_MS - performance.now();
    if (rest <= 0 || this.#asked) return;
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
