/** A run as its client sees it: what `Run` is, at the other end of a port. */
import { abortReason } from "../errors.js";
import type { FinetuneResult, TrainEvent } from "../train/events.js";
import { EventQueue } from "../train/queue.js";
import type { Run } from "../train/run.js";
import { disconnected, type Loss } from "./port.js";
import { received, type Reply, type Request } from "./protocol.js";

/** Events that may be on their way or wait here; those beyond wait at the server, which merges steps. */
const WINDOW = 64;

/**
 * A training run in another process or worker: an iterator over its events and a promise of its result, as `Run`.
 * When the other end goes away, both reject with `ERR_DISCONNECTED`, which names the last checkpoint.
 */
export class RemoteRun implements Pick<Run<FinetuneResult>, keyof Run<FinetuneResult>> {
  /** What the run came to; rejects with what went wrong. */
  readonly result: Promise<FinetuneResult>;
  readonly #queue = new EventQueue<TrainEvent>();
  readonly #post: (request: Request) => void;
  readonly #run: number;
  readonly #signal: AbortSignal | undefined;
  readonly #abort = (): void => this.#post({ kind: "abort", run: this.#run });
  #resolve: (result: FinetuneResult) => void = () => {};
  #reject: (error: unknown) => void = () => {};
  /** Events read since the server was last told. */
  #read = 0;
  #saved: { step: number; path: string } | undefined;
  #failure: { error: unknown } | undefined;
  #settled = false;
  /** The pause that was asked for last and not ended since. */
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
      this.fail(abortReason(signal));
      return;
    }
    signal?.addEventListener("abort", this.#abort, { once: true });
    post({ kind: "start", run, options, credit: WINDOW });
  }

  /** Finishes the step, saves, and resolves with the result; calling it again is harmless. */
  stop(): Promise<FinetuneResult> {
    if (!this.#settled) this.#post({ kind: "stop", run: this.#run });
    return this.result;
  }

  /**
   * Pauses the run after the step in progress, as `Run`. Resolves once it has paused, has been resumed, or has ended, and
   * also when the other end has gone.
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
   * As `stop()`, for `await using`: resolves once the run has ended, however it did. What went wrong is told by
   * `result` and the iterator.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop().catch(() => {});
  }

  /** Its events from here on, each given to one reader. */
  [Symbol.asyncIterator](): AsyncIterator<TrainEvent, undefined> {
    return {
      next: async () => {
        const next = await this.#queue.next();
        if (next.done !== true) this.#took();
        return next;
      },
      return: () => Promise.resolve({ value: undefined, done: true }),
    };
  }

  /** @internal Takes what the server says of it; true when nothing more will come. */
  take(reply: Extract<Reply, { run: number }>): boolean {
    switch (reply.kind) {
      case "event":
        this.#queue.push(reply.event);
        return false;
      case "saved":
        this.#saved = reply;
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
          error: aborted && signal !== undefined ? abortReason(signal) : received(error),
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

  /** @internal The other end is gone. */
  lose(loss: Loss): void {
    const signal = this.#signal;
    if (signal?.aborted && !this.#settled) {
      this.fail(abortReason(signal));
      return;
    }
    const from =
      this.#saved === undefined
        ? "no checkpoint of it was seen; one in its output folder goes on with resume: true"
        : `start it again with resume: true, which goes on from its last checkpoint, ${this.#saved.path} (step ${this.#saved.step})`;
    this.fail(disconnected(loss, ` while a run went on; ${from}`));
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

  /** Told in halves of the window, so that a message is not answered by another. */
  #took(): void {
    if (++this.#read < WINDOW / 2) return;
    this.#post({ kind: "pull", run: this.#run, credit: this.#read });
    this.#read = 0;
  }
}
