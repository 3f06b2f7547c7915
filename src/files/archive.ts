/** Paths in Electron's asar archives, which JavaScript can read but native code cannot. */
import { existsSync, statSync } from "node:fs";

import { LowrankError } from "../errors.js";

/** Returns the unpacked path of a file in an asar archive; other paths unchanged. */
export function resolveUnpacked(path: string): string {
  return path.replace(/\.asar(?=[\\/])/, ".asar.unpacked");
}

/**
 * Returns the path with which native code can open `path`. Throws `ERR_FILE_NOT_FOUND` for a file that exists only inside
 * an archive.
 */
export function resolveNativePath(path: string): string {
  const unpacked = resolveUnpacked(path);
  if (unpacked === path) return path;
  if (existsSync(unpacked)) return unpacked;
  if (!existsSync(path) || isFolder(path.slice(0, path.search(/\.asar[\\/]/) + ".asar".length))) return path;
  throw new LowrankError(
    "ERR_FILE_NOT_FOUND",
    `${path} is inside an archive, where the engine cannot read it; unpack it (asarUnpack of electron-builder, ` +
      "asar.unpack of Forge), or keep models outside of the app",
  );
}

/** Whether a path that ends in .asar is a real folder. Electron presents archives as folders unless `noAsar` is set. */
function isFolder(path: string): boolean {
  const electron = process as { noAsar?: boolean };
  const { noAsar } = electron;
  electron.noAsar = true;
  try {
    return statSync(path).isDirectory();
  } finally {
    if (noAsar === undefined) delete electron.noAsar;
    else electron.noAsar = noAsar;
  }
}
