/** Folders made level by level. */
import { mkdir, stat } from "node:fs/promises";
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
