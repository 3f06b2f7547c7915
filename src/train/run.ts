import type { TrainEvent } from "./events.js";
import { EventQueue } from "./queue.js";

/** What the work of a run is given. */
export interface RunContext {
  /** Tells the readers; never waits and never throws. */
  emit(event: TrainEvent): void;
  /** Aborted by `stop()`: finish the step, save, return. */
  readonly stopping: AbortSignal;
}

/**
 * Long work that has begun: an iterator over its events and a promise of its result.
 *
 * An error rejects `result` and is thrown by the iterator; a run that nobody looks at ends quietly, since an error
 * is never an unhandled rejection. Leaving a `for await` loop early doesn't stop the work: `stop()` does.
 */
export class Run<Result> implements AsyncIterable<TrainEvent> {
  readonly result: Promise<Result>;
  readonly #queue = new EventQueue();
  readonly #stop = new AbortController();

  constructor(work: (context: RunContext) => Promise<Result>) {
    const context: RunContext = { emit: (event) => this.#queue.push(event), stopping: this.#stop.signal };
    this.result = this.#start(work, context);
    this.result.catch(() => {});
  }

  /** Finishes the step, saves, and resolves with the result; calling it again is harmless. */
  stop(): Promise<Result> {
    this.#stop.abort();
    return this.result;
  }

  [Symbol.asyncIterator](): AsyncIterator<TrainEvent, undefined> {
    return {
      next: () => this.#queue.next(),
      return: () => Promise.resolve({ value: undefined, done: true }),
    };
  }

  async #start(work: (context: RunContext) => Promise<Result>, context: RunContext): Promise<Result> {
    try {
      const result = await work(context);
      this.#queue.close();
      return result;
    } catch (error) {
      this.#queue.fail(error);
      throw error;
    }
  }
}
