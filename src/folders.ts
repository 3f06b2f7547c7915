/** Folders: made level by level, and put in one another's place. */
import { existsSync } from "node:fs";
import { mkdir, rename, rm, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";

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
 * Puts the folder `from` in the place of `to`. What is there is moved aside, and back where `from` cannot take its
 * place, so that one of the two is there whole at any time. Windows moves no folder of which a file is open: nothing
 * has changed then.
 */
export async function replaceFolder(from: string, to: string): Promise<void> {
  const aside = `${to}.old-${process.pid}`;
  const there = existsSync(to);
  if (there) await rename(to, aside).catch(inUse(to));
  try {
    await rename(from, to);
  } catch (error) {
    if (there) await rename(aside, to);
    throw error;
  }
  if (there) await rm(aside, { recursive: true, force: true });
}

function inUse(folder: string): (error: NodeJS.ErrnoException) => never {
  return (error) => {
    if (error.code !== "EPERM" && error.code !== "EBUSY" && error.code !== "EACCES") throw error;
    const open = `${folder} cannot be moved, perhaps since a file in it is in use; choose another folder`;
    throw Object.assign(new Error(`${open} (${error.message})`, { cause: error }), { code: error.code });
  };
}
