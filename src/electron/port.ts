/** A common interface to the ports of Electron, the web, worker threads and forked processes. */
import { LowrankError } from "../errors.js";
import { extractMessage, type Tag } from "./protocol.js";

/**
 * A channel for messages: a `MessagePort` of a page or of `node:worker_threads`, a `Worker`, `parentPort`; Electron's
 * `MessagePortMain`, `UtilityProcess` and `process.parentPort`; a child of `child_process.fork`, and its `process`.
 */
export type Port =
  | {
      /** Sends a message to the other end. */
      postMessage(message: unknown): unknown;
    }
  | {
      /** Sends a message to the other process. */
      send?: ((message: never) => unknown) | undefined;
      /** Adds a listener. */
      on(event: never, listener: never): unknown;
    };

/** The possible methods of a port; the methods that exist determine its kind. */
interface PortMethods {
  postMessage?(message: unknown): void;
  send?(message: unknown, done: () => void): void;
  on?(event: string, listener: Listener): void;
  removeListener?(event: string, listener: Listener): void;
  addEventListener?(event: string, listener: Listener): void;
  removeEventListener?(event: string, listener: Listener): void;
  start?(): void;
  close?(): void;
  kill?: unknown;
  terminate?: unknown;
  connected?: boolean;
  exitCode?: number | null;
  signalCode?: string | null;
}

type Listener = (...args: never[]) => void;

/** The reason why the other end is gone. */
export interface Loss {
  /** A clause, such as `the process at the other end ended (signal SIGKILL)`. */
  why: string;
  cause?: unknown;
}

/** Returns the error for a lost connection: `ERR_DISCONNECTED`. */
export function createDisconnected({ why, cause }: Loss, remedy = ""): LowrankError {
  return new LowrankError("ERR_DISCONNECTED", why + remedy, cause === undefined ? {} : { cause });
}

/** An open port. */
export interface Channel {
  /** Sends a message; a closed port ignores it. */
  post(message: object): void;
  /** Removes the listeners; closes a message port, but not a worker or a process. */
  close(): void;
}

/** Milliseconds to wait for the exit of a process after its channel has closed. */
const GRACE = 500;

/**
 * Listens at a port of any kind. `onLost` is called once, after all messages, when the other end is gone.
 * Throws `ERR_OPTION` for an object that is not a port.
 */
export function openPort(
  where: string,
  given: unknown,
  onMessage: (message: Tag & { kind: string }) => void,
  onLost: (loss: Loss) => void,
): Channel {
  const port = checkPort(where, given);
  const listeners: [event: string, listener: Listener][] = [];
  let open = true;
  const handleLoss = (loss: Loss): void => {
    if (open) onLost(loss);
  };
  const listen = (event: string, listener: Listener): void => {
    listeners.push([event, listener]);
    if (port.on !== undefined) port.on(event, listener);
    else port.addEventListener?.(event, listener);
  };
  listen("message", (value: unknown) => {
    const message = open ? extractMessage(value) : undefined;
    if (message !== undefined) onMessage(message);
  });
  if (port.postMessage === undefined) watchProcess(port, listen, handleLoss);
  else if (port.terminate !== undefined) watchWorker(listen, handleLoss);
  else if (port.kill !== undefined)
    listen("exit", (code: unknown) =>
      handleLoss({ why: `the utility process ended (exit code ${String(code)})` }),
    );
  else
    listen("close", () => handleLoss({ why: "the port was closed, or the process at its other end ended" }));
  // A message port holds messages back until it is started.
  port.start?.();
  const bare = port.postMessage !== undefined && port.kill === undefined && port.terminate === undefined;
  return {
    post(message) {
      if (!open) return;
      if (port.postMessage !== undefined) port.postMessage(message);
      // Without a callback, sending on a closed channel would be an unhandled error.
      else port.send?.(message, () => {});
    },
    close() {
      open = false;
      for (const [event, listener] of listeners)
        if (port.removeListener !== undefined) port.removeListener(event, listener);
        else port.removeEventListener?.(event, listener);
      if (bare) port.close?.();
    },
  };
}

function checkPort(where: string, given: unknown): PortMethods {
  const port = (typeof given === "object" && given !== null ? given : {}) as PortMethods;
  const speaks = typeof port.postMessage === "function" || typeof port.send === "function";
  const listens = typeof port.on === "function" || typeof port.addEventListener === "function";
  if (speaks && listens) return port;
  const what =
    given === globalThis.process
      ? "this process, which was not started by child_process.fork, has none to its parent"
      : `${given === null ? "null" : typeof given} is none: process.parentPort is there in a utility process of Electron, ` +
        "parentPort of node:worker_threads in a worker";
  throw new LowrankError("ERR_OPTION", `${where} takes a port: ${what}`);
}

function watchWorker(listen: (event: string, listener: Listener) => void, lost: (loss: Loss) => void): void {
  let cause: unknown;
  listen("error", (error: unknown) => (cause = error));
  listen("exit", (code: unknown) => {
    const why = cause instanceof Error ? cause.message : `exit code ${String(code)}`;
    lost({ why: `the worker ended (${why})`, cause });
  });
}

/** A process emits its exit and the end of its channel separately, in either sequence; messages precede the latter. */
function watchProcess(
  port: PortMethods,
  listen: (event: string, listener: Listener) => void,
  lost: (loss: Loss) => void,
): void {
  if ((port as unknown) === globalThis.process) {
    listen("disconnect", () => lost({ why: "the parent process went away" }));
    return;
  }
  let ended: string | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const report = (): void => {
    clearTimeout(timer);
    lost({ why: ended ?? "the process at the other end closed its channel" });
  };
  const endedBy = (code: unknown, signal: unknown): string =>
    `the process at the other end ended (${typeof signal === "string" ? `signal ${signal}` : `exit code ${String(code)}`})`;
  listen("exit", (code: unknown, signal: unknown) => {
    ended = endedBy(code, signal);
    if (port.connected !== true) report();
  });
  listen("disconnect", () => {
    if (ended !== undefined) report();
    else timer = setTimeout(report, GRACE);
  });
  listen("error", (cause: unknown) => {
    if (port.connected !== true) lost({ why: `the process did not start (${String(cause)})`, cause });
  });
  if (port.connected === true) return;
  const { exitCode, signalCode } = port;
  if (exitCode != null || signalCode != null) ended = endedBy(exitCode, signalCode);
  queueMicrotask(report);
}
