/** Replaces `index.ts` in a page's bundle: without Node and without the engine. */
import { LowrankError } from "../errors.js";

export { Client, connect, type ConnectOptions } from "./client.js";
export type { RemoteFinetuneOptions } from "./options.js";
export type { Port } from "./port.js";
export { RemoteRun } from "./remote-run.js";
export type { FoundRuns } from "../runs/find.js";
export type { RunState, RunSummary } from "../runs/summary.js";
export { LowrankError, type ErrorCode } from "../errors.js";

/** Throws `ERR_NATIVE_LOAD`, because the engine needs Node. */
export function serve(): never {
  throw new LowrankError(
    "ERR_NATIVE_LOAD",
    "serve was bundled for a page, where the engine cannot run; call it in a utility process, a worker or a forked process",
  );
}
