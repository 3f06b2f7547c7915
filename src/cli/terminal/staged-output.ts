/** Output of a command: standard output, or a file that is written atomically. */
import { once } from "node:events";
import { existsSync, statSync } from "node:fs";
import { type FileHandle, open, rm } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { LowrankError, readSystemCode } from "../../errors.js";
import { makeFolder, move } from "../../files/folders.js";

export interface Output {
  write(text: string): Promise<void>;
  /** Renames the staging file to its path. */
  finish(): Promise<void>;
  /** Removes the staging file. */
  discard(): Promise<void>;
}

/** Writes to standard output with backpressure. */
export function createStandardOutput(): Output {
  return {
    async write(text) {
      if (!process.stdout.write(text)) await once(process.stdout, "drain");
    },
    finish: () => Promise.resolve(),
    discard: () => Promise.resolve(),
  };
}

/** Throws `ERR_OUTPUT_EXISTS` if `path` exists, unless it is a regular file and `replace` is true. */
export function checkOutput(path: string, replace: boolean): void {
  if (!existsSync(path)) return;
  if (!statSync(path).isFile())
    throw new LowrankError("ERR_OUTPUT_EXISTS", `${path}: is not a regular file; name another --output`);
  if (!replace)
    throw new LowrankError(
      "ERR_OUTPUT_EXISTS",
      `${path}: exists; name another --output, or replace it with --yes`,
    );
}

/** Opens a staging file next to `path`. Throws `ERR_WRITE`. */
export async function openStagedFile(path: string): Promise<Output> {
  const staged = `${resolve(path)}.part-${process.pid}`;
  const failure = (cause: unknown): unknown => {
    const code = readSystemCode(cause);
    if (cause instanceof LowrankError || code === undefined) return cause;
    return new LowrankError("ERR_WRITE", `${path}: cannot be written (${code})`, { cause });
  };
  let file: FileHandle | undefined;
  try {
    await makeFolder(dirname(staged));
    file = await open(staged, "w");
  } catch (cause) {
    throw failure(cause);
  }
  const handle = file;
  let finished = false;
  return {
    async write(text) {
      await handle.writeFile(text).catch((cause: unknown) => {
        throw failure(cause);
      });
    },
    async finish() {
      try {
        await handle.sync();
        await handle.close();
        await move(staged, path);
        finished = true;
      } catch (cause) {
        throw failure(cause);
      }
    },
    async discard() {
      if (finished) return;
      await handle.close().catch(() => {});
      await rm(staged, { force: true }).catch(() => {});
    },
  };
}
