/** Electron's archives: JavaScript reads what lies in them, and native code does not. */
import { existsSync, statSync } from "node:fs";

import { LowrankError } from "./errors.js";

/** Where what lies in an archive lies once it is unpacked beside it; any other path as it is. */
export function unpacked(path: string): string {
  return path.replace(/\.asar(?=[\\/])/, ".asar.unpacked");
}

/**
 * The path by which native code opens what JavaScript knows as `path`. Throws `ERR_FILE_NOT_FOUND` for what lies in an
 * archive alone.
 */
export function nativePath(path: string): string {
  const beside = unpacked(path);
  if (beside === path) return path;
  if (existsSync(beside)) return beside;
  if (!existsSync(path) || isFolder(path.slice(0, path.search(/\.asar[\\/]/) + ".asar".length))) return path;
  throw new LowrankError(
    "ERR_FILE_NOT_FOUND",
    `${path} lies inside an archive, where the engine cannot read it; unpack it (asarUnpack of electron-builder, ` +
      "asar.unpack of Forge), or keep models outside of the app",
  );
}

/** Whether a name that ends in .asar is a folder's: Electron shows an archive as one, unless it is told not to. */
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
