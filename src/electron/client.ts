/** The client's end of a port, which starts and watches runs. It needs neither Node nor the engine. */
import { checkNumberThat, checkKnownOptions, refuse } from "../arguments/check.js";
import { LowrankError } from "../errors.js";
import type { DeviceInfo } from "../device/device.js";
import type { FoundRuns } from "../runs/find.js";
import { separateSignal, type RemoteFinetuneOptions } from "./options.js";
import { createDisconnected, openPort, type Channel, type Loss, type Port } from "./port.js";
import { PROTOCOL, deserializeError, type Reply, type Request, type Tag } from "./protocol.js";
import { RemoteRun } from "./remote-run.js";

/** The options of `connect`. */
export interface ConnectOptions {
  /** The milliseconds, above 0, within which the other end must respond for the first time; 30,000. */
  timeout?: number | undefined;
}

/**
 * Returns a client of the server at the other end of `port`. Requests can be made at once; they wait until the other end
 * serves.
 *
 * Throws `ERR_OPTION` for an object that is not a port.
 */
export function connect(port: Port, options?: ConnectOptions): Client {
  const { timeout = 30_000 } = checkKnownOptions("connect", options, ["timeout"]);
  checkNumberThat(
    "connect",
    "timeout",
    timeout,
    (ms) => ms > 0 && ms < 2 ** 31,
    "a number of milliseconds above 0",
  );
  return new Client(port, timeout);
}

interface Call {
  resolve: (value: never) => void;
  reject: (error: unknown) => void;
}

/** The client's end of a port: see `connect`. Several clients may share a port. */
export class Client {
  /**
   * Resolves when the other end has responded. Rejects with `ERR_PROTOCOL` if it has another version or if the port
   * carries JSON, and with `ERR_DISCONNECTED` if it does not respond. All requests then reject with the same error.
   */
  readonly ready: Promise<void>;
  readonly #name = Math.random().toString(36).slice(2);
  readonly #channel: Channel;
  readonly #runs = new Map<number, RemoteRun>();
  readonly #calls = new Map<number, Call>();
  readonly #timer: ReturnType<typeof setTimeout>;
  /** Requests made before the other end has responded. */
  #waiting: Request[] | undefined = [];
  #failure: { error: () => unknown } | undefined;
  #numbers = 0;
  #greeted: () => void = () => {};
  #refused: (error: unknown) => void = () => {};

  /** @internal */
  constructor(port: Port, timeout: number) {
    this.ready = new Promise((resolve, reject) => {
      this.#greeted = resolve;
      this.#refused = reject;
    });
    this.ready.catch(() => {});
    this.#channel = openPort(
      "connect",
      port,
      (message) => {
        if (message.to === "client" && message.client === this.#name) this.#take(message as Tag & Reply);
      },
      (loss) => this.#disconnect(loss),
    );
    this.#timer = setTimeout(() => {
      this.#disconnect({
        why: `the other end did not respond within ${timeout} ms; is serve(port) called there?`,
      });
    }, timeout);
    this.#send({ kind: "hello" });
  }

  /**
   * Starts a training run at the other end, as `finetune` does.
   *
   * Errors: `ERR_OPTION` is thrown for an option that cannot be sent, such as a loaded model or a function. Errors of
   * `finetune`, including `ERR_NATIVE_LOAD`, reject `result`. So do `ERR_DISCONNECTED` and, after an abort, the signal's
   * reason.
   */
  finetune(options: RemoteFinetuneOptions): RemoteRun {
    const { options: sent, signal } = separateSignal(options);
    const number = ++this.#numbers;
    const run = new RemoteRun((request) => this.#ask(request), number, sent, signal);
    if (signal?.aborted) return run;
    if (this.#failure === undefined) this.#runs.set(number, run);
    else run.fail(this.#createFailure());
    return run;
  }

  /** Returns the devices of the machine, as the other end sees them. Rejects with `ERR_NATIVE_LOAD`, `ERR_DISCONNECTED`. */
  devices(): Promise<DeviceInfo[]> {
    return this.#call((call) => ({ kind: "devices", call }));
  }

  /**
   * Finds the runs with an output folder at or below `folder`, at most four folders deep. A run with the state
   * `interrupted` or `stopped` and a `checkpoint` continues with `finetune({ output: run.folder, resume: true })`, also
   * after a crash or at the next start of the app. A run with the state `running` or `paused` is in use.
   *
   * Rejects with `ERR_FILE_NOT_FOUND` if there is no such folder, and with `ERR_DISCONNECTED`. Throws `ERR_OPTION` if
   * `folder` is not a path.
   */
  findRuns(folder: string): Promise<FoundRuns> {
    if (typeof folder !== "string" || folder === "")
      refuse("findRuns", "folder", "the path of a folder", folder);
    return this.#call((call) => ({ kind: "runs", call, folder }));
  }

  /**
   * Disconnects. The other end stops this client's runs with a checkpoint, unless it was configured to continue them. Here
   * they reject with `ERR_DISCONNECTED`. A message port is closed; a worker or a process is not.
   */
  close(): void {
    if (this.#failure !== undefined) return;
    this.#send({ kind: "bye" });
    this.#disconnect({ why: "the client was closed" });
  }

  #call<T extends DeviceInfo[] | FoundRuns>(request: (call: number) => Request): Promise<T> {
    if (this.#failure !== undefined) return Promise.reject(this.#createFailure());
    return new Promise<T>((resolve, reject) => {
      const call = ++this.#numbers;
      this.#calls.set(call, { resolve, reject });
      this.#ask(request(call));
    });
  }

  #ask(request: Request): void {
    if (this.#failure !== undefined) return;
    if (this.#waiting === undefined) this.#send(request);
    else this.#waiting.push(request);
  }

  #send(request: Request): void {
    this.#channel.post({ lowrank: PROTOCOL, to: "server", client: this.#name, ...request });
  }

  #take(reply: Tag & Reply): void {
    switch (reply.kind) {
      case "hello":
        this.#handleHello(reply);
        break;
      case "bye":
        this.#disconnect({ why: "the other end has stopped serving" });
        break;
      case "answer":
        this.#calls.get(reply.call)?.resolve(reply.value as never);
        this.#calls.delete(reply.call);
        break;
      case "refused":
        this.#calls.get(reply.call)?.reject(deserializeError(reply.error));
        this.#calls.delete(reply.call);
        break;
      default:
        if (this.#runs.get(reply.run)?.take(reply) === true) this.#runs.delete(reply.run);
    }
  }

  #handleHello({ lowrank, notJson }: Tag & Extract<Reply, { kind: "hello" }>): void {
    clearTimeout(this.#timer);
    if (lowrank !== PROTOCOL) {
      this.#refuse(
        `connect: the other end speaks protocol ${lowrank}, and this end ${PROTOCOL}; both must come from one version of ` +
          "lowrank: install one, and build the page's bundle again",
      );
    } else if (!Number.isNaN(notJson)) {
      this.#refuse(
        'connect: this channel carries JSON, which loses values; fork the process with { serialization: "advanced" }',
      );
    } else {
      this.#greeted();
      const waiting = this.#waiting ?? [];
      this.#waiting = undefined;
      for (const request of waiting) this.#send(request);
    }
  }

  #refuse(message: string): void {
    const error = new LowrankError("ERR_PROTOCOL", message);
    this.#end({ error: () => error });
    for (const run of this.#runs.values()) run.fail(error);
    this.#runs.clear();
  }

  #disconnect(loss: Loss): void {
    this.#end({ error: () => createDisconnected(loss) });
    for (const run of this.#runs.values()) run.disconnect(loss);
    this.#runs.clear();
  }

  #end(failure: { error: () => unknown }): void {
    this.#failure = failure;
    clearTimeout(this.#timer);
    this.#refused(this.#createFailure());
    for (const { reject } of this.#calls.values()) reject(this.#createFailure());
    this.#calls.clear();
    this.#channel.close();
  }

  #createFailure(): unknown {
    return this.#failure?.error();
  }
}
