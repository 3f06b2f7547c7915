/** Whether Electron's executable may run as Node, which an app can turn off when it is packed. */
import { closeSync, openSync, readSync } from "node:fs";
import { join } from "node:path";

/** What stands in the executable in front of the fuses (Electron, "Electron Fuses", `@electron/fuses`). */
const SENTINEL = Buffer.from("dL7pKGdnNz796PbbjQWNKmHXBZaB9tsX");
/** Bytes behind it: a version, the number of fuses, and a letter for each; the first is RunAsNode. */
const RUN_AS_NODE = 2;
const CHUNK = 8 << 20;

/** Whether the fuse RunAsNode of an executable is on; true where it has no fuses. */
export function runsAsNode(executable: string): boolean {
  const file = openSync(executable, "r");
  try {
    const overlap = SENTINEL.length + RUN_AS_NODE + 1;
    const buffer = Buffer.alloc(CHUNK + overlap);
    for (let at = 0; ; at += CHUNK) {
      const read = readSync(file, buffer, 0, buffer.length, at);
      const found = buffer.subarray(0, read).indexOf(SENTINEL);
      if (found >= 0) return buffer[found + SENTINEL.length + RUN_AS_NODE] !== "0".charCodeAt(0);
      if (read < buffer.length) return true;
    }
  } finally {
    closeSync(file);
  }
}

let known: boolean | undefined;

/** Whether this process's executable runs scripts: Node does, and Electron unless its app was packed without that. */
export function canRunScripts(): boolean {
  if (process.versions["electron"] === undefined || process.env["ELECTRON_RUN_AS_NODE"] !== undefined)
    return true;
  // On macOS the fuses are in the framework, beside the app's own executable.
  const framework = "../Frameworks/Electron Framework.framework/Electron Framework";
  const file = process.platform === "darwin" ? join(process.execPath, "..", framework) : process.execPath;
  try {
    known ??= runsAsNode(file);
  } catch {
    // Helpers of macOS lie elsewhere. Starting an app a second time would be worse than no test.
    known = false;
  }
  return known;
}
