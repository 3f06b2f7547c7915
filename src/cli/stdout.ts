/** What happens when standard output cannot be written any more. */
import { FAILED } from "./failure.js";

type Failed = NodeJS.ErrnoException;

let told: ((error: Failed) => void) | undefined;

/**
 * Ends the process at the first failure: quietly where a reader has seen enough (`lowrank … | head`), with a line
 * elsewhere. A failure of standard error is told nowhere.
 */
export function watchStreams(): void {
  process.stdout.on("error", (error: Failed) => {
    if (told !== undefined) return told(error);
    if (error.code === "EPIPE") process.exit(0);
    process.stderr.write(`lowrank: stdout cannot be written (${error.code ?? error.message})\n`);
    process.exit(FAILED);
  });
  process.stderr.on("error", () => {});
}

/** Calls `lost` at a failure of standard output instead, which may come again; gives what ends that. */
export function onLostStdout(lost: (error: Failed) => void): () => void {
  told = lost;
  return () => {
    told = undefined;
  };
}
