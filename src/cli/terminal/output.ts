/** The stream that a command prints to. */
import type { WriteStream } from "node:tty";

/** The output stream: standard output, or a substitute in tests. */
export type Output = Pick<WriteStream, "write"> & {
  isTTY?: boolean | undefined;
  columns?: number | undefined;
};

/** Clears the cursor's line. */
export const CLEAR = "\r\u001b[2K";
