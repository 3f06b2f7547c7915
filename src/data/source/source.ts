/** Sources of data: a file, which can be read repeatedly, or a stream, which is buffered on disk. */
import { closeSync, createReadStream, open as openFile, openSync, read, rmSync, writeSync } from "node:fs";
import { access, constants, type FileHandle, mkdtemp, open, rm, stat, statfs } from "node:fs/promises";
import { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { readAbortReason, LowrankError, readSystemCode, throwIfAborted } from "../../errors.js";

/** Bytes per read; small enough that encoding them ends soon when a run is stopped. */
const READ = 1 << 17;

/** A stream of bytes that can be destroyed. */
type Readable = NodeJS.ReadableStream & { destroy?: (() => unknown) | undefined };

/** The bytes of some data. */
export interface ByteSource {
  /** Its name in errors: the file's name, or `standard input`. */
  readonly name: string;
  /** The total bytes; undefined for a stream that has not been read to its end. */
  readonly size: number | undefined;
  /** The position of its first byte in a file, and of its line, from 1; by default the beginning. */
  readonly position?: { readonly offset: number; readonly line: number } | undefined;
  /** Reads its bytes in blocks, which the reader may keep. Throws `ERR_FILE_FORMAT` where they cannot be read. */
  read(signal?: AbortSignal): AsyncIterable<Uint8Array>;
  /** Opens it for random access; a stream is first read to its end. The caller closes the result. */
  openRandomAccess(signal?: AbortSignal): Promise<RandomAccess>;
  /** Deletes the temporary file of a stream. */
  close(): void;
}

/** Random access to bytes. */
export interface RandomAccess {
  readonly byteLength: number;
  /** Reads the bytes from `start` to `end`. Throws `ERR_FILE_FORMAT` where they cannot be read. */
  slice(start: number, end?: number): Promise<ArrayBuffer>;
  close(): Promise<void>;
}

/** The path that means standard input. */
export const STANDARD_INPUT = "-";

/**
 * Opens a file, a named pipe, or `-`, standard input.
 *
 * Throws `ERR_FILE_NOT_FOUND`; `ERR_FILE_FORMAT` for a folder or an unreadable file.
 */
export async function openSource(path: string): Promise<ByteSource> {
  if (path === STANDARD_INPUT) return new Stream("standard input", () => process.stdin);
  try {
    const found = await stat(path);
    if (found.isDirectory()) {
      throw new LowrankError("ERR_FILE_FORMAT", `${path}: is a folder, and a data file was expected`);
    }
    await access(path, constants.R_OK);
    if (found.isFile()) return new Regular(path, found.size);
    if (found.isFIFO()) return new Stream(path, () => openPipe(path));
    return new Stream(path, () => createReadStream(path, { highWaterMark: READ }));
  } catch (cause) {
    throw explainReadError(path, cause);
  }
}

/** Opens a named pipe as a socket, because a file stream cannot cancel a pending read. */
async function openPipe(path: string): Promise<Socket> {
  const fd = await promisify(openFile)(path, "r");
  return new Socket({ fd, readable: true, writable: false });
}

/** Returns the error for a data file that cannot be read; any other value unchanged. */
export function explainReadError(name: string, cause: unknown): unknown {
  if (cause instanceof LowrankError) return cause;
  const code = readSystemCode(cause);
  if (code === undefined) return cause;
  if (code === "ENOENT" || code === "ENOTDIR") {
    return new LowrankError("ERR_FILE_NOT_FOUND", `${name}: no such data file`, { cause });
  }
  const why = code === "EACCES" || code === "EPERM" ? `${code}: no permission` : code;
  return new LowrankError("ERR_FILE_FORMAT", `${name}: cannot be read (${why})`, { cause });
}

/** A range of a file, in bytes. */
export interface FileRange {
  start: number;
  /** Infinity for the end of the file. */
  end: number;
}

/** Reads a range of a file in blocks. Errors: as `ByteSource.read`. */
export async function* readRange(
  path: string,
  { start, end }: FileRange,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  let file: FileHandle | undefined;
  try {
    file = await open(path);
    for (let position = start; position < end;) {
      throwIfAborted(signal);
      const block = new Uint8Array(Math.min(READ, end - position));
      const { bytesRead } = await file.read(block, 0, block.length, position);
      if (bytesRead === 0) return;
      position += bytesRead;
      yield block.subarray(0, bytesRead);
    }
  } catch (cause) {
    throw signal?.aborted ? readAbortReason(signal) : explainReadError(path, cause);
  } finally {
    await file?.close();
  }
}

class Regular implements ByteSource {
  constructor(
    readonly name: string,
    readonly size: number,
  ) {}

  read(signal?: AbortSignal): AsyncIterable<Uint8Array> {
    return readRange(this.name, { start: 0, end: Infinity }, signal);
  }

  async openRandomAccess(): Promise<RandomAccess> {
    const file = await open(this.name).catch((cause: unknown) => {
      throw explainReadError(this.name, cause);
    });
    const { name, size: byteLength } = this;
    const read: ReadAt = (into, position) =>
      file.read(into, 0, into.length, position).then(({ bytesRead }) => bytesRead);
    return { byteLength, slice: createSlicer(name, byteLength, read), close: () => file.close() };
  }

  close(): void {}
}

/** Reads bytes at an offset; resolves to their number. */
type ReadAt = (into: Uint8Array, position: number) => Promise<number>;

function createSlicer(name: string, size: number, readAt: ReadAt): RandomAccess["slice"] {
  return async (start, end = size) => {
    if (!(start >= 0 && start <= end && end <= size)) {
      const what = `bytes ${start} to ${end} are asked for, and it has ${size}`;
      throw new LowrankError("ERR_FILE_FORMAT", `${name}: ${what}; it is cut off or damaged`);
    }
    const bytes = new Uint8Array(end - start);
    try {
      for (let filled = 0; filled < bytes.length;) {
        const count = await readAt(bytes.subarray(filled), start + filled);
        if (count === 0)
          throw new LowrankError("ERR_FILE_FORMAT", `${name}: became shorter while it was read`);
        filled += count;
      }
    } catch (cause) {
      throw explainReadError(name, cause);
    }
    return bytes.buffer;
  };
}

/** Bytes of a stream between two checks of the free disk space. */
const SPACE_EVERY = 32 << 20;
/** The disk space to leave free: this many bytes, or this share of the disk if that is less. */
const MOST_FREE = 2 ** 30;
const LEAST_FREE = 0.05;

/** Disk space, in bytes. */
interface Space {
  free: number;
  total: number;
}

/** Returns the disk space of the temporary folder. */
async function readTemporarySpace(): Promise<Space> {
  const { bavail, blocks, bsize } = await statfs(tmpdir());
  return { free: bavail * bsize, total: blocks * bsize };
}

/** A stream, which can be read only once: its bytes are copied to a temporary file, from which later reads come. */
export class Stream implements ByteSource {
  #stored: { file: number; size: number; folder: string } | undefined;

  constructor(
    readonly name: string,
    private readonly begin: () => Readable | Promise<Readable>,
    /** Converts a failure of the stream to the error to throw. */
    private readonly failure: (name: string, cause: unknown) => unknown = explainReadError,
    private readonly space: () => Promise<Space> = readTemporarySpace,
  ) {}

  /** Throws `ERR_WRITE` before the disk is full, because other programs need space too. */
  async #checkSpace(size: number): Promise<void> {
    const { free, total } = await this.space();
    if (free >= Math.min(MOST_FREE, total * LEAST_FREE)) return;
    throw this.#createSpaceError(size);
  }

  #createSpaceError(size: number, cause?: unknown): LowrankError {
    const what = `${this.name}: ${tmpdir()} has too little space to buffer it (${size} bytes so far)`;
    const remedy = "rows must end even if few steps are needed; set TMPDIR to a larger disk, or give a file";
    return new LowrankError("ERR_WRITE", `${what}; ${remedy}`, { cause });
  }

  get size(): number | undefined {
    return this.#stored?.size;
  }

  async *read(signal?: AbortSignal): AsyncIterable<Uint8Array> {
    yield* this.#stored === undefined ? this.#readFirst(signal) : this.#readAgain(this.#stored.file, signal);
  }

  async *#readFirst(signal: AbortSignal | undefined): AsyncIterable<Uint8Array> {
    throwIfAborted(signal);
    const folder = await mkdtemp(join(tmpdir(), "lowrank-data-"));
    const path = join(folder, "stream");
    const file = openSync(path, "wx+", 0o600);
    // Where the system allows it, the file is unlinked here, so that it disappears however the process ends.
    await rm(folder, { recursive: true }).catch(() => {});
    let size = 0;
    let ended = false;
    let checked = -SPACE_EVERY;
    let stop = (): void => {};
    try {
      const stream = await this.begin();
      stop = () => void stream.destroy?.();
      throwIfAborted(signal);
      signal?.addEventListener("abort", stop, { once: true });
      for await (const chunk of stream as AsyncIterable<Uint8Array>) {
        throwIfAborted(signal);
        if (size - checked >= SPACE_EVERY) {
          checked = size;
          await this.#checkSpace(size);
        }
        for (let written = 0; written < chunk.length;) written += writeSync(file, chunk, written);
        size += chunk.length;
        yield chunk;
      }
      throwIfAborted(signal);
      this.#stored = { file, size, folder };
      ended = true;
    } catch (cause) {
      if (signal?.aborted) throw readAbortReason(signal);
      if (cause instanceof LowrankError && cause.code === "ERR_WRITE") throw cause;
      throw readSystemCode(cause) === "ENOSPC"
        ? this.#createSpaceError(size, cause)
        : this.failure(this.name, cause);
    } finally {
      signal?.removeEventListener("abort", stop);
      if (!ended) {
        stop();
        remove(file, folder);
      }
    }
  }

  async *#readAgain(file: number, signal: AbortSignal | undefined): AsyncIterable<Uint8Array> {
    const stream = createReadStream("", { fd: file, autoClose: false, start: 0, highWaterMark: READ });
    for await (const chunk of stream as AsyncIterable<Uint8Array>) {
      throwIfAborted(signal);
      yield chunk;
    }
  }

  async openRandomAccess(signal?: AbortSignal): Promise<RandomAccess> {
    if (this.#stored === undefined) for await (const _ of this.#readFirst(signal)) throwIfAborted(signal);
    const { file, size: byteLength } = this.#stored as { file: number; size: number };
    const readAt: ReadAt = (into, position) =>
      new Promise((resolve, reject) =>
        read(file, into, 0, into.length, position, (error, count) =>
          error ? reject(error) : resolve(count),
        ),
      );
    return { byteLength, slice: createSlicer(this.name, byteLength, readAt), close: async () => {} };
  }

  close(): void {
    if (this.#stored !== undefined) remove(this.#stored.file, this.#stored.folder);
    this.#stored = undefined;
  }
}

function remove(file: number, folder: string): void {
  closeSync(file);
  rmSync(folder, { recursive: true, force: true });
}
