/**
 * Runs training in a separate process or worker and watches it from another: `serve(port)` runs it, `connect(port)`
 * watches it. In a page's bundle this module contains only `connect`, and nothing of Node.
 */
export { Client, connect, type ConnectOptions } from "./client.js";
export type { RemoteFinetuneOptions } from "./options.js";
export type { Port } from "./port.js";
export { RemoteRun } from "./remote-run.js";
export { serve, type Server, type ServeOptions } from "./server.js";
export type { FoundRuns } from "../runs/find.js";
export type { RunState, RunSummary } from "../runs/summary.js";
export { LowrankError, type ErrorCode } from "../errors.js";
