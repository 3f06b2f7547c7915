/**
 * A training run in a process or worker of its own, watched from another: `serve(port)` where it lives, `connect(port)`
 * where it is watched. In a page's bundle this module holds `connect` alone, and nothing of Node.
 */
export { Client, connect, type ConnectOptions } from "./client.js";
export type { RemoteFinetuneOptions } from "./options.js";
export type { Port } from "./port.js";
export { RemoteRun } from "./remote-run.js";
export { serve, type Server, type ServeOptions } from "./server.js";
export type { FoundRuns } from "../runs/find.js";
export type { RunState, RunSummary } from "../runs/summary.js";
export { LowrankError, type ErrorCode } from "../errors.js";
