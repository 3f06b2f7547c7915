/** Detects whether Electron's executable may run as Node, which an app can disable when it is packaged. */
import { closeSync, openSync, readSync } from "node:fs";
import { join } from "node:path";

/** The marker in the executable before the fuses (Electron, "Electron Fuses", `@electron/fuses`). */
const SENTINEL = Buffer.from("dL7pKGdnNz796PbbjQWNKmHXBZaB9tsX");
/** Offset of RunAsNode after the marker: the version and the number of fuses precede one letter per fuse. */
const RUN_AS_NODE = 2;
const CHUNK = 8 << 20;

/** Whether the fuse RunAsNode of an executable is on; true if it has no fuses. */
export function runsAsNode(executable: string): boolean {
  const file = openSync(executable, "r");
  try {
    const overlap = SENTINEL.length + RUN_AS_NODE + 1;
    const buffer = Buffer.alloc(CHUNK + overlap);
    for (let offset = 0; ; offset += CHUNK) {
      const read = readSync(file, buffer, 0, buffer.length, offset);
      const found = buffer.subarray(0, read).indexOf(SENTINEL);
      if (found >= 0) return buffer[found + SENTINEL.length + RUN_AS_NODE] !== "0".charCodeAt(0);
      if (read < buffer.length) return true;
    }
  } finally {
    closeSync(file);
  }
}

let known: boolean | undefined;

/** Whether this process's executable can run scripts: always for Node, and for Electron unless the app disabled it. */
export function canRunScripts(): boolean {
  if (process.versions["electron"] === undefined || process.env["ELECTRON_RUN_AS_NODE"] !== undefined)
    return true;
  // On macOS the fuses are in the framework, not in the app's executable.
  const framework = "../Frameworks/Electron Framework.framework/Electron Framework";
  const file = process.platform === "darwin" ? join(process.execPath, "..", framework) : process.execPath;
  try {
    known ??= runsAsNode(file);
  } catch {
    // Helper executables on macOS have another path. No test is better than starting the app a second time.
    known = false;
  }
  return known;
}
