import { giveBack } from "../native/binding.js";
import type { TrainEvent } from "./events.js";
import { Pausing } from "./pausing.js";
import { EventQueue, type Queued } from "./queue.js";

/** The connection of a run's work to its caller. */
export interface RunContext<Event = TrainEvent> {
  /** Sends an event to the readers; never waits and never throws. */
  emit(event: Event): void;
  /** Aborted by `stop()`: the work finishes the step, saves and returns. */
  readonly stopping: AbortSignal;
  /** The requests of `pause()` and `resume()`. */
  readonly pausing: Pausing;
}

/**
 * Long work in progress: an iterator over its events, and a promise of its result.
 *
 * An error rejects `result` and is thrown by the iterator. It is never an unhandled rejection, so that a run without
 * readers ends quietly. Leaving a `for await` loop does not stop the work; `stop()` does.
 */
export class Run<Result, Event extends Queued = TrainEvent> implements AsyncIterable<Event> {
  /** The result of the run; rejects with its error. */
  readonly result: Promise<Result>;
  readonly #queue = new EventQueue<Event>();
  readonly #stop = new AbortController();
  readonly #pausing = new Pausing();

  constructor(work: (context: RunContext<Event>) => Promise<Result>) {
    const context: RunContext<Event> = {
      emit: (event) => this.#queue.push(event),
      stopping: this.#stop.signal,
      pausing: this.#pausing,
    };
    this.result = this.#start(work, context);
    this.result.catch(() => {});
  }

  /** Finishes the step, saves, and resolves with the result. Further calls are harmless. */
  stop(): Promise<Result> {
    this.#stop.abort();
    return this.result;
  }

  /**
   * Pauses the run after the current step, or after the current batch of an evaluation, and emits a `paused` event. A run
   * that has not begun to train pauses before its first step. Everything stays in memory, and the device is idle. A paused
   * run can be stopped, which saves it. The pause is excluded from speeds and from the times of `saveEvery`, and does not
   * affect the results.
   *
   * Resolves once the run has paused, was resumed, or has ended. Further calls are harmless.
   */
  pause(): Promise<void> {
    return this.#pausing.pause();
  }

  /** Continues a paused run, which emits a `resumed` event. Harmless for any other run. */
  resume(): Promise<void> {
    this.#pausing.resume();
    return Promise.resolve();
  }

  /**
   * Stops the run like `stop()`, for `await using`. Resolves once the run has ended, even with an error, which `result`
   * and the iterator report.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop().catch(() => {});
  }

  /** Iterates over the events from here on; each event goes to one reader. */
  [Symbol.asyncIterator](): AsyncIterator<Event, undefined> {
    return {
      next: () => this.#queue.next(),
      return: () => Promise.resolve({ value: undefined, done: true }),
    };
  }

  async #start(
    work: (context: RunContext<Event>) => Promise<Result>,
    context: RunContext<Event>,
  ): Promise<Result> {
    try {
      const result = await work(context);
      this.#queue.close();
      return result;
    } catch (error) {
      this.#queue.fail(error);
      throw error;
    } finally {
      this.#pausing.end();
      giveBack();
    }
  }
}
