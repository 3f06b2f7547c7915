/** The server's end of a port, which runs training. The engine is loaded by the first request that needs it. */
import { checkChoice, checkKnownOptions } from "../arguments/check.js";
import type { Priority } from "../device/cpu-use.js";
import type { FinetuneOptions } from "../train/options.js";
import { openPort, type Channel, type Port } from "./port.js";
import { PROTOCOL, serializeError, type Reply, type Request, type Tag } from "./protocol.js";
import { ServedRun } from "./served-run.js";

/** The options of `serve`. */
export interface ServeOptions {
  /**
   * The action for runs of a client that has disconnected: `stop` finishes the step and saves a checkpoint, `continue`
   * trains to the end without a reader. `stop`.
   */
  onDisconnect?: "stop" | "continue" | undefined;
  /**
   * The priority of runs without a given or recorded priority: `background` leaves one core free and lets other programs
   * run first, so that windows stay responsive; `normal` uses all cores at normal priority. `background`.
   */
  priority?: Priority | undefined;
}

/** The server at a port: see `serve`. */
export interface Server {
  /**
   * Stops the runs that were started over this port, each with a checkpoint, and stops serving. Resolves when they have
   * ended. Clients are notified.
   */
  close(): Promise<void>;
}

/**
 * Runs the requests of clients at the other end of `port` in this process. Several ports may be served, each with several
 * clients and runs. A closed port counts as a client that disconnects. Signals of the process are not handled.
 *
 * Throws `ERR_OPTION` for an object that is not a port.
 */
export function serve(port: Port, options?: ServeOptions): Server {
  const { onDisconnect = "stop", priority = "background" } = checkKnownOptions("serve", options, [
    "onDisconnect",
    "priority",
  ]);
  checkChoice("serve", "onDisconnect", onDisconnect, ["stop", "continue"]);
  checkChoice("serve", "priority", priority, ["normal", "background"]);
  return new PortServer(port, onDisconnect === "stop", priority);
}

/** Runs of disconnected clients in this process that are being stopped and still hold their folders. */
const leaving = new Set<Promise<void>>();

class PortServer implements Server {
  readonly #channel: Channel;
  readonly #stops: boolean;
  readonly #priority: Priority;
  /** Runs by client and number. */
  readonly #clients = new Map<string, Map<number, ServedRun>>();
  #closed: Promise<void> | undefined;

  constructor(port: Port, stops: boolean, priority: Priority) {
    this.#stops = stops;
    this.#priority = priority;
    this.#channel = openPort(
      "serve",
      port,
      (message) => {
        if (message.to === "server") this.#take(message as Tag & Request);
      },
      () => {
        for (const client of this.#clients.keys()) this.#leave(client);
        this.#channel.close();
      },
    );
  }

  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  async #close(): Promise<void> {
    const runs = [...this.#clients.values()].flatMap((each) => [...each.values()]);
    for (const run of runs) run.stop();
    await Promise.all(runs.map((run) => run.ended));
    for (const client of this.#clients.keys()) this.#reply(client, { kind: "bye" });
    this.#channel.close();
  }

  #take(request: Tag & Request): void {
    const { client } = request;
    // A client of another version understands this reply, and reports the mismatch.
    if (request.kind === "hello") {
      if (!this.#clients.has(client)) this.#clients.set(client, new Map());
      this.#reply(client, { kind: "hello", notJson: Number.NaN });
    }
    const runs = this.#clients.get(client);
    if (request.lowrank !== PROTOCOL || runs === undefined || request.kind === "hello") return;
    switch (request.kind) {
      case "start":
        if (this.#closed === undefined) this.#start(client, runs, request);
        break;
      case "devices":
        void this.#answer(client, request.call, async () => {
          const { devices, findDevices } = await import("../device/device.js");
          await findDevices("gpu");
          return devices();
        });
        break;
      case "runs":
        void this.#answer(client, request.call, async () => {
          const { RunFinder } = await import("../runs/find.js");
          return new RunFinder(request.folder).find();
        });
        break;
      case "bye":
        this.#leave(client);
        break;
      default:
        runs.get(request.run)?.take(request);
    }
  }

  #start(
    client: string,
    runs: Map<number, ServedRun>,
    { run: number, options, credit }: Extract<Request, { kind: "start" }>,
  ): void {
    const free = Promise.all([...leaving]);
    const run = new ServedRun(
      number,
      options as FinetuneOptions,
      this.#priority,
      free,
      (reply) => this.#reply(client, reply),
      () => runs.delete(number),
    );
    run.take({ kind: "pull", run: number, credit });
    runs.set(number, run);
  }

  async #answer(
    client: string,
    call: number,
    work: () => Promise<Extract<Reply, { kind: "answer" }>["value"]>,
  ): Promise<void> {
    try {
      this.#reply(client, { kind: "answer", call, value: await work() });
    } catch (error) {
      this.#reply(client, { kind: "refused", call, error: serializeError(error) });
    }
  }

  /** Handles the disconnection of a client. */
  #leave(client: string): void {
    const runs = [...(this.#clients.get(client)?.values() ?? [])];
    this.#clients.delete(client);
    for (const run of runs) {
      run.discardMessages();
      if (!this.#stops) continue;
      run.stop();
      leaving.add(run.ended);
      void run.ended.then(() => leaving.delete(run.ended));
    }
  }

  #reply(client: string, reply: Reply): void {
    this.#channel.post({ lowrank: PROTOCOL, to: "client", client, ...reply });
  }
}
