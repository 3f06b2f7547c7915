/** The client's view of a run: the interface of `Run`, through a port. */
import { readAbortReason } from "../errors.js";
import type { FinetuneResult, TrainEvent } from "../train/events.js";
import { EventQueue } from "../train/queue.js";
import type { Run } from "../train/run.js";
import { createDisconnected, type Loss } from "./port.js";
import { deserializeError, type Reply, type Request } from "./protocol.js";

/** The maximum number of events in transit or unread here. Further ones wait at the server, which merges steps. */
const WINDOW = 64;

/**
 * A training run in another process or worker: an iterator over its events and a promise of its result, like `Run`. If the
 * other end is gone, both reject with `ERR_DISCONNECTED`, which names the last checkpoint.
 */
export class RemoteRun implements Pick<Run<FinetuneResult>, keyof Run<FinetuneResult>> {
  /** The result of the run; rejects with its error. */
  readonly result: Promise<FinetuneResult>;
  readonly #queue = new EventQueue<TrainEvent>();
  readonly #post: (request: Request) => void;
  readonly #run: number;
  readonly #signal: AbortSignal | undefined;
  readonly #abort = (): void => this.#post({ kind: "abort", run: this.#run });
  #resolve: (result: FinetuneResult) => void = () => {};
  #reject: (error: unknown) => void = () => {};
  /** Events read since the server last received credit. */
  #readEvents = 0;
  #checkpoint: { step: number; path: string } | undefined;
  #failure: { error: unknown } | undefined;
  #settled = false;
  /** The last requested pause that has not ended. */
  #pausing: { number: number; promise: Promise<void>; resolve: () => void } | undefined;
  #pauses = 0;

  /** @internal */
  constructor(
    post: (request: Request) => void,
    run: number,
    options: object,
    signal: AbortSignal | undefined,
  ) {
    this.#post = post;
    this.#run = run;
    this.#signal = signal;
    this.result = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.result.catch(() => {});
    if (signal?.aborted) {
      this.fail(readAbortReason(signal));
      return;
    }
    signal?.addEventListener("abort", this.#abort, { once: true });
    post({ kind: "start", run, options, credit: WINDOW });
  }

  /** Finishes the step, saves, and resolves with the result. Further calls are harmless. */
  stop(): Promise<FinetuneResult> {
    if (!this.#settled) this.#post({ kind: "stop", run: this.#run });
    return this.result;
  }

  /**
   * Pauses the run after the current step, like `Run`. Resolves once it has paused, was resumed, or has ended, and also if
   * the other end is gone.
   */
  pause(): Promise<void> {
    if (this.#settled) return Promise.resolve();
    if (this.#pausing === undefined) {
      let resolve = (): void => {};
      const promise = new Promise<void>((settle) => (resolve = settle));
      const number = ++this.#pauses;
      this.#pausing = { number, promise, resolve };
      this.#post({ kind: "pause", run: this.#run, pause: number });
    }
    return this.#pausing.promise;
  }

  /** Continues a paused run. */
  resume(): Promise<void> {
    if (!this.#settled) this.#post({ kind: "resume", run: this.#run });
    this.#endPausing();
    return Promise.resolve();
  }

  #endPausing(): void {
    this.#pausing?.resolve();
    this.#pausing = undefined;
  }

  /**
   * Stops the run like `stop()`, for `await using`. Resolves once the run has ended, even with an error, which `result`
   * and the iterator report.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop().catch(() => {});
  }

  /** Iterates over the events from here on; each event goes to one reader. */
  [Symbol.asyncIterator](): AsyncIterator<TrainEvent, undefined> {
    return {
      next: async () => {
        const next = await this.#queue.next();
        if (next.done !== true) this.#returnCredit();
        return next;
      },
      return: () => Promise.resolve({ value: undefined, done: true }),
    };
  }

  /** @internal Handles a message of the server about this run; returns true for the last one. */
  take(reply: Extract<Reply, { run: number }>): boolean {
    switch (reply.kind) {
      case "event":
        this.#queue.push(reply.event);
        return false;
      case "saved":
        this.#checkpoint = reply;
        this.#post({ kind: "noted", run: this.#run });
        return false;
      case "paused":
        if (reply.pause === this.#pausing?.number) this.#pausing.resolve();
        return false;
      case "result":
        this.#settle();
        this.#resolve(reply.result);
        return false;
      case "failed": {
        const { error, aborted } = reply;
        const signal = this.#signal;
        this.#failure = {
          error: aborted && signal !== undefined ? readAbortReason(signal) : deserializeError(error),
        };
        this.#settle();
        this.#reject(this.#failure.error);
        return false;
      }
      case "end":
        if (this.#failure === undefined) this.#queue.close();
        else this.#queue.fail(this.#failure.error);
        return true;
    }
  }

  /** @internal Ends the run because the other end is gone. */
  disconnect(loss: Loss): void {
    const signal = this.#signal;
    if (signal?.aborted && !this.#settled) {
      this.fail(readAbortReason(signal));
      return;
    }
    const from =
      this.#checkpoint === undefined
        ? "it reported no checkpoint; resume: true continues from one in its output folder, if there is any"
        : `start it again with resume: true, which continues from its last checkpoint, ${this.#checkpoint.path} (step ${this.#checkpoint.step})`;
    this.fail(createDisconnected(loss, ` during a run; ${from}`));
  }

  /** @internal */
  fail(error: unknown): void {
    this.#settle();
    this.#reject(error);
    this.#queue.fail(error);
  }

  #settle(): void {
    this.#settled = true;
    this.#endPausing();
    this.#signal?.removeEventListener("abort", this.#abort);
  }

  /** Returns credit in halves of the window, so that not every event causes a message. */
  #returnCredit(): void {
    if (++this.#readEvents < WINDOW / 2) return;
    this.#post({ kind: "pull", run: this.#run, credit: this.#readEvents });
    this.#readEvents = 0;
  }
}
