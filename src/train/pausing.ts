/** Pauses of a run: asked for by its caller, taken by its work between two steps. */

/** The pauses of one run. */
export class Pausing {
  /** Resolved once the work has paused, or will not: it was resumed, or the run has ended. */
  #asked: { resolve: () => void; promise: Promise<void> } | undefined;
  #ended = false;
  /** Continues the work that waits. */
  #continue: (() => void) | undefined;
  readonly #wake = (): void => this.#continue?.();

  /** Whether the work should pause at its next opportunity. */
  get requested(): boolean {
    return this.#asked !== undefined;
  }

  /** Asks for a pause; resolves once it has begun, or the run has been resumed or has ended. */
  pause(): Promise<void> {
    if (this.#ended) return Promise.resolve();
    if (this.#asked === undefined) {
      let resolve = (): void => {};
      const promise = new Promise<void>((settle) => (resolve = settle));
      this.#asked = { resolve, promise };
    }
    return this.#asked.promise;
  }

  /** Ends the pause, or the request for one. */
  resume(): void {
    this.#asked?.resolve();
    this.#asked = undefined;
    this.#wake();
  }

  /** The run has ended: no pause will come. */
  end(): void {
    this.#ended = true;
    this.resume();
  }

  /**
   * Waits until `resume`, or until one of `signals` is aborted, which it does not throw. The process stays meanwhile. `paused`
   * is called before whoever asked is told.
   */
  async wait(signals: readonly (AbortSignal | undefined)[], paused: () => void): Promise<void> {
    if (this.#asked === undefined) return;
    const given = signals.filter((signal) => signal !== undefined);
    if (given.some((signal) => signal.aborted)) return;
    paused();
    // Nothing else may hold the event loop open while no work is on its way.
    const hold = setInterval(() => {}, 2 ** 30);
    await new Promise<void>((resolve) => {
      this.#continue = resolve;
      for (const signal of given) signal.addEventListener("abort", this.#wake);
      this.#asked?.resolve();
    });
    for (const signal of given) signal.removeEventListener("abort", this.#wake);
    this.#continue = undefined;
    clearInterval(hold);
  }
}
