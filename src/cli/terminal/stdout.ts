/** Handles failures of standard output. */
import { FAILED } from "./failure.js";

type Failed = NodeJS.ErrnoException;

let listener: ((error: Failed) => void) | undefined;

/**
 * Ends the process at the first failure: silently if the reader closed the pipe (`lowrank … | head`), otherwise with a
 * message. Failures of standard error are ignored.
 */
export function watchStreams(): void {
  process.stdout.on("error", (error: Failed) => {
    if (listener !== undefined) return listener(error);
    if (error.code === "EPIPE") process.exit(0);
    process.stderr.write(`lowrank: stdout cannot be written (${error.code ?? error.message})\n`);
    process.exit(FAILED);
  });
  process.stderr.on("error", () => {});
}

/** Calls `lost` for each failure of standard output instead of ending the process. Returns a function that stops this. */
export function watchStdout(lost: (error: Failed) => void): () => void {
  listener = lost;
  return () => {
    listener = undefined;
  };
}
