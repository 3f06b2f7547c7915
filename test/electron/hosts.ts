/** Starts a server in each kind of process or thread, and returns the port to it. */
import { fork, type ChildProcess } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { createRequire } from "node:module";
import type { Readable } from "node:stream";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";

import type { Port } from "../../src/electron/index.js";

/** The program of the server. */
const SERVED = new URL("served.mjs", import.meta.url);
const MODULE = new URL("../../src/electron/index.ts", import.meta.url).href;
const TSX = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
const UTILITY = new URL("utility-process.mjs", import.meta.url).href;

export type Kind = "worker" | "fork" | "utility";

/** A running server, seen from outside. */
export interface Host {
  port: Port;
  /** Sends a message that is not part of the protocol. */
  tell(value: unknown): void;
  kill(signal?: NodeJS.Signals): void;
  /** The exit status or signal, and the text on stderr. */
  ended: Promise<{ status: number | null; signal: string | null; errors: string }>;
}

interface Options {
  env?: Record<string, string>;
  serialization?: "advanced" | "json";
  /** Another program. */
  program?: URL | string;
  cwd?: string;
}

const running = new Set<Host>();

/** Ends the servers that a test left running. */
export async function endAll(): Promise<void> {
  for (const host of running) host.kill("SIGKILL");
  await Promise.all([...running].map((host) => host.ended));
}

export function start(kind: Kind, options: Options = {}): Host {
  const host = kind === "worker" ? startWorker(options) : startProcess(kind, options);
  running.add(host);
  void host.ended.then(() => running.delete(host));
  return host;
}

function startWorker({ env = {}, program = SERVED }: Options): Host {
  const worker = new Worker(program, {
    env: { ...process.env, LOWRANK_ELECTRON: MODULE, ...env },
    stderr: true,
    execArgv: [],
  });
  let errors = "";
  worker.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text));
  return {
    port: worker,
    tell: (value) => worker.postMessage(value),
    kill: () => void worker.terminate(),
    ended: new Promise((resolve) => worker.on("exit", (status) => resolve({ status, signal: null, errors }))),
  };
}

function startProcess(kind: "fork" | "utility", options: Options): Host {
  const { env = {}, serialization = "advanced", program = SERVED, cwd } = options;
  const child = fork(typeof program === "string" ? program : fileURLToPath(program), [], {
    execArgv: [`--import=${TSX}`, ...(kind === "utility" ? [`--import=${UTILITY}`] : [])],
    env: { ...process.env, NODE_OPTIONS: "", LOWRANK_ELECTRON: MODULE, ...env },
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    serialization,
    ...(cwd === undefined ? {} : { cwd }),
  });
  let errors = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (errors += text));
  const utility = kind === "utility" ? new Utility(child) : undefined;
  return {
    port: utility ?? child,
    tell: (value) => (utility === undefined ? child.send(value as object) : utility.postMessage(value)),
    kill: (signal) => child.kill(signal),
    ended: Promise.all([once(child, "exit"), once(child.stderr as Readable, "end")]).then(([exit]) => {
      const [status, signal] = exit as [number | null, string | null];
      return { status, signal, errors };
    }),
  };
}

interface Carried {
  utility?: { port: number; data?: unknown; closed?: boolean };
}

/** Electron's `UtilityProcess`, as the main process has it: see `utility-process.mjs`. */
export class Utility extends EventEmitter {
  readonly #child: ChildProcess;
  readonly #pages = new Map<number, PagePort>();
  #numbers = 0;

  constructor(child: ChildProcess) {
    super();
    this.#child = child;
    child.on("message", (message) => {
      const { utility } = message as Carried;
      if (utility === undefined) return;
      if (utility.port === 0) this.emit("message", utility.data);
      else if (utility.closed === true) this.#pages.get(utility.port)?.lose();
      else this.#pages.get(utility.port)?.take(utility.data);
    });
    child.on("exit", (code) => {
      for (const page of this.#pages.values()) page.lose();
      this.emit("exit", code);
    });
  }

  postMessage(data: unknown, ports: readonly Handed[] = []): void {
    const carried = ports.map((port) => this.#hand(port));
    this.#send({ port: 0, data, carried });
  }

  kill(): boolean {
    return this.#child.kill();
  }

  /** Passes one end of a new channel to the process, and returns the other. */
  page(): PagePort {
    const { port1, port2 } = new Channel();
    this.postMessage("a page's port", [port1]);
    return port2;
  }

  #hand({ page }: Handed): number {
    const number = ++this.#numbers;
    page.connect((message) => this.#send({ port: number, ...message }));
    this.#pages.set(number, page);
    return number;
  }

  #send(utility: object): void {
    if (this.#child.connected) this.#child.send({ utility }, () => {});
  }
}

/** A transferred end of a channel, by the other end. */
interface Handed {
  page: PagePort;
}

/** Electron's `MessageChannelMain`: one port for a utility process, and one for a page. */
export class Channel {
  readonly port2 = new PagePort();
  readonly port1: Handed = { page: this.port2 };
}

/** A page's `MessagePort`, which, unlike Node's, is only an event target. */
export class PagePort extends EventTarget {
  #send: (message: { data: unknown } | { closed: true }) => void = () => {};
  readonly #waiting: unknown[] = [];
  #started = false;

  /** Called once the other end has been transferred; nothing is sent before. */
  connect(send: (message: { data: unknown } | { closed: true }) => void): void {
    this.#send = send;
  }

  postMessage(data: unknown): void {
    this.#send({ data: structuredClone(data) });
  }

  start(): void {
    this.#started = true;
    for (const data of this.#waiting.splice(0)) this.take(data);
  }

  close(): void {
    this.#send({ closed: true });
  }

  take(data: unknown): void {
    if (!this.#started) this.#waiting.push(data);
    else this.dispatchEvent(Object.assign(new Event("message"), { data }));
  }

  lose(): void {
    this.dispatchEvent(new Event("close"));
  }
}
