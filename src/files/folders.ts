/** Creates, moves and replaces folders, even if their files are mapped into memory. */
import { existsSync, lstatSync, realpathSync } from "node:fs";
import { mkdir, readdir, rename, rm, stat, statfs } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";

import { LowrankError, readSystemCode } from "../errors.js";
import { native, unwrapResult } from "../native/binding.js";

/**
 * Creates `path` and its missing parents; returns the topmost created folder. `mkdir` with `recursive` loops forever on
 * file systems that report a missing parent instead of a refusal, such as /proc.
 */
export async function makeFolder(path: string): Promise<string | undefined> {
  const full = resolve(path);
  const existing = await stat(full).catch(() => undefined);
  if (existing !== undefined) {
    if (existing.isDirectory()) return undefined;
    throw Object.assign(new Error(`${path}: is a file`), { code: "EEXIST" });
  }
  const above = dirname(full) === full ? undefined : await makeFolder(dirname(full));
  await mkdir(full).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error;
  });
  return above ?? full;
}

/**
 * Returns the absolute path of a folder, which need not exist, without a trailing separator, so that sibling names can be
 * derived from it. Links are resolved, so that replacing the folder keeps the link.
 */
export function resolveLocation(folder: string): string {
  return existsSync(folder) ? realpathSync(folder) : resolve(folder);
}

/** Returns the free bytes on a folder's file system; undefined if it does not report them. */
export async function readFreeBytes(folder: string): Promise<number | undefined> {
  const disk = await statfs(folder).catch(() => undefined);
  return disk === undefined || disk.blocks === 0 ? undefined : disk.bavail * disk.bsize;
}

/**
 * Replaces the folder `to` by `from`. The old folder is first moved aside, and moved back if the replacement fails or the
 * old files cannot be removed, so that one complete folder exists at any time. Throws like `move`. `away` removes a file.
 */
export async function replaceFolder(from: string, to: string, away = remove): Promise<void> {
  const exists = existsSync(to);
  let aside = `${to}.old-${process.pid}`;
  for (let n = 2; existsSync(aside); n++) aside = `${to}.old-${process.pid}-${n}`;
  if (exists) await move(to, aside);
  try {
    await move(from, to);
  } catch (error) {
    if (exists) await move(aside, to);
    throw error;
  }
  if (!exists) return;
  const files = await readdir(aside);
  const weights = files.filter((name) => name.endsWith(".safetensors")).map((name) => join(aside, name));
  const first = weights.find((path) => lstatSync(path).isFile());
  try {
    // A file mapped by another program can be moved but not removed. Until the first removal, everything can be undone.
    if (first !== undefined) await away(first);
  } catch (error) {
    await move(to, from);
    await move(aside, to);
    const { code, message } = error as LowrankError;
    throw new LowrankError(code, message.replaceAll(aside, to), { cause: error });
  }
  await releaseMappings([aside], () => rm(aside, { recursive: true, force: true })).catch((error: Error) => {
    process.emitWarning(`${aside}: what was replaced cannot be removed, and can go: ${error.message}`);
  });
}

/**
 * Renames a file or a folder, overwriting an existing file. Windows refuses that for mapped files; then this process
 * releases its mappings, and tensors in them keep their values. Throws `ERR_WRITE` if the system still refuses,
 * `ERR_OUT_OF_MEMORY` if such tensors do not fit into memory.
 */
export async function move(from: string, to: string): Promise<void> {
  await releaseMappings([from, to], () => rename(from, to));
}

/** Removes a file if it exists. Throws like `move`. */
export async function remove(file: string): Promise<void> {
  await releaseMappings([file], () => rm(file, { force: true }));
}

/** Runs `change` on files. If the system refuses, releases this process's mappings of them and tries again. */
export async function releaseMappings(
  paths: readonly [string, ...string[]],
  change: () => Promise<void>,
): Promise<void> {
  for (;;) {
    try {
      return await change();
    } catch (error) {
      if (!REFUSALS.has(readSystemCode(error) ?? "")) throw error;
      let released = 0;
      for (const path of paths) released += unwrapResult(await native().releaseMapped(path));
      if (released === 0)
        throw createRefusedError(paths.findLast((path) => existsSync(path)) ?? paths[0], error as Error);
    }
  }
}

/** Error codes of Windows for a file in use, or a folder that contains one. */
const REFUSALS = new Set(["EPERM", "EBUSY", "EACCES"]);

function createRefusedError(path: string, cause: Error): LowrankError {
  const why = "permission is missing, or another program uses it or a file in it";
  const what = `${path}: cannot be moved, replaced or removed: ${why}; close that, or choose another folder`;
  return new LowrankError("ERR_WRITE", `${what} (${cause.message})`, { cause });
}
