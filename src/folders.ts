/** Folders: made level by level, and put in one another's place, also where their files are mapped into memory. */
import { existsSync, lstatSync, realpathSync } from "node:fs";
import { mkdir, readdir, rename, rm, stat, statfs } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";

import { LowrankError, systemCode } from "./errors.js";
import { native, settled } from "./native.js";

/**
 * Makes `path` and what is missing above it; returns the uppermost that was made. `mkdir`'s own `recursive` never
 * ends where a file system refuses a folder by saying that its parent is not there, as /proc does.
 */
export async function makeFolder(path: string): Promise<string | undefined> {
  const full = resolve(path);
  const there = await stat(full).catch(() => undefined);
  if (there !== undefined) {
    if (there.isDirectory()) return undefined;
    throw Object.assign(new Error(`${path}: is a file`), { code: "EEXIST" });
  }
  const above = dirname(full) === full ? undefined : await makeFolder(dirname(full));
  await mkdir(full).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error;
  });
  return above ?? full;
}

/**
 * Where a folder lies, or would: names beside it can be made of this. It ends in no separator, and what a link leads to is
 * meant, so that the link stays.
 */
export function locationOf(folder: string): string {
  return existsSync(folder) ? realpathSync(folder) : resolve(folder);
}

/** Bytes that are free for files in a folder; undefined where its file system does not say. */
export async function freeBytes(folder: string): Promise<number | undefined> {
  const disk = await statfs(folder).catch(() => undefined);
  return disk === undefined || disk.blocks === 0 ? undefined : disk.bavail * disk.bsize;
}

/**
 * Puts the folder `from` in the place of `to`. What is there is moved aside, and back where `from` cannot take its
 * place or what was there cannot go, so that one of the two is there whole at any time. Throws as `move` does. `away`
 * removes a file.
 */
export async function replaceFolder(from: string, to: string, away = remove): Promise<void> {
  const there = existsSync(to);
  let aside = `${to}.old-${process.pid}`;
  for (let n = 2; existsSync(aside); n++) aside = `${to}.old-${process.pid}-${n}`;
  if (there) await move(to, aside);
  try {
    await move(from, to);
  } catch (error) {
    if (there) await move(aside, to);
    throw error;
  }
  if (!there) return;
  const files = await readdir(aside);
  const weights = files.filter((name) => name.endsWith(".safetensors")).map((name) => join(aside, name));
  const first = weights.find((path) => lstatSync(path).isFile());
  try {
    // What another program has mapped may be moved, but not removed. As long as nothing is gone, all can go back.
    if (first !== undefined) await away(first);
  } catch (error) {
    await move(to, from);
    await move(aside, to);
    const { code, message } = error as LowrankError;
    throw new LowrankError(code, message.replaceAll(aside, to), { cause: error });
  }
  await lettingGo([aside], () => rm(aside, { recursive: true, force: true })).catch((error: Error) => {
    process.emitWarning(`${aside}: what was replaced cannot be removed, and can go: ${error.message}`);
  });
}

/**
 * Renames a file, over one that is there, or a folder. Windows does neither where a file is mapped into memory: what
 * this process has mapped is let go then, and tensors that lie in it keep their values. Throws `ERR_WRITE` where the
 * system refuses it all the same, `ERR_OUT_OF_MEMORY` where such tensors do not fit elsewhere.
 */
export async function move(from: string, to: string): Promise<void> {
  await lettingGo([from, to], () => rename(from, to));
}

/** Removes a file; nothing where there is none. Throws as `move` does. */
export async function remove(file: string): Promise<void> {
  await lettingGo([file], () => rm(file, { force: true }));
}

/** Does `change` to files; where the system refuses, again once what this process has mapped of them is let go. */
export async function lettingGo(
  paths: readonly [string, ...string[]],
  change: () => Promise<void>,
): Promise<void> {
  for (;;) {
    try {
      return await change();
    } catch (error) {
      if (!REFUSALS.has(systemCode(error) ?? "")) throw error;
      let released = 0;
      for (const path of paths) released += settled(await native().releaseMapped(path));
      if (released === 0)
        throw refused(paths.findLast((path) => existsSync(path)) ?? paths[0], error as Error);
    }
  }
}

/** What Windows says of a file that is in use, or of a folder that holds one. */
const REFUSALS = new Set(["EPERM", "EBUSY", "EACCES"]);

function refused(path: string, cause: Error): LowrankError {
  const why = "permission is missing, or another program uses it or a file in it";
  const what = `${path}: cannot be moved, replaced or removed: ${why}; close that, or choose another folder`;
  return new LowrankError("ERR_WRITE", `${what} (${cause.message})`, { cause });
}
