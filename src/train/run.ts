import { giveBack } from "../native.js";
import type { TrainEvent } from "./events.js";
import { Pausing } from "./pausing.js";
import { EventQueue, type Queued } from "./queue.js";

/** What the work of a run is given. */
export interface RunContext<Event = TrainEvent> {
  /** Tells the readers; never waits and never throws. */
  emit(event: Event): void;
  /** Aborted by `stop()`: finish the step, save, return. */
  readonly stopping: AbortSignal;
  /** What `pause()` and `resume()` ask for. */
  readonly pausing: Pausing;
}

/**
 * Long work that has begun: an iterator over its events and a promise of its result.
 *
 * An error rejects `result` and is thrown by the iterator; a run that nobody looks at ends quietly, since an error
 * is never an unhandled rejection. Leaving a `for await` loop early doesn't stop the work: `stop()` does.
 */
export class Run<Result, Event extends Queued = TrainEvent> implements AsyncIterable<Event> {
  /** What the run came to; rejects with what went wrong. */
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

  /** Finishes the step, saves, and resolves with the result; calling it again is harmless. */
  stop(): Promise<Result> {
    this.#stop.abort();
    return this.result;
  }

  /**
   * Pauses the run after the step in progress, or the batch of an evaluation, of which a `paused` event tells; one that has
   * not begun to train pauses before its first step. Everything stays in memory, and the device has nothing to do. A paused run can be stopped, which
   * saves it. Its time does not count in rates, nor in the times of `saveEvery`, and no bit of the result depends on it.
   *
   * Resolves once the run has paused, has been resumed, or has ended; calling it again is harmless.
   */
  pause(): Promise<void> {
    return this.#pausing.pause();
  }

  /** Continues a paused run, of which a `resumed` event tells; harmless for any other. */
  resume(): Promise<void> {
    this.#pausing.resume();
    return Promise.resolve();
  }

  /**
   * As `stop()`, for `await using`: resolves once the run has ended, however it did. What went wrong is told by
   * `result` and the iterator.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop().catch(() => {});
  }

  /** Its events from here on, each given to one reader. */
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
