/** Pauses of a run: requested by the caller, taken by the work between two steps. */

/** The pauses of one run. */
export class Pausing {
  /** The request; resolves once the work has paused, was resumed before it paused, or has ended. */
  #request: { resolve: () => void; promise: Promise<void> } | undefined;
  #ended = false;
  /** Functions that continue the waiting parts of the work. */
  readonly #waiting = new Set<() => void>();
  readonly #wake = (): void => {
    for (const resume of this.#waiting) resume();
  };

  /** Whether the work should pause at its next opportunity. */
  get requested(): boolean {
    return this.#request !== undefined;
  }

  /** Requests a pause. Resolves once it has begun, or once the run has been resumed or has ended. */
  pause(): Promise<void> {
    if (this.#ended) return Promise.resolve();
    if (this.#request === undefined) {
      let resolve = (): void => {};
      const promise = new Promise<void>((settle) => (resolve = settle));
      this.#request = { resolve, promise };
    }
    return this.#request.promise;
  }

  /** Ends the pause, or withdraws the request. */
  resume(): void {
    this.#request?.resolve();
    this.#request = undefined;
    this.#wake();
  }

  /** Ends all pauses, because the run has ended. */
  end(): void {
    this.#ended = true;
    this.resume();
  }

  /**
   * Waits until `resume`, or until one of `signals` aborts, which does not throw. Keeps the process alive meanwhile. Calls
   * `paused` before the promise of `pause` resolves.
   */
  async wait(signals: readonly (AbortSignal | undefined)[], paused: () => void): Promise<void> {
    if (this.#request === undefined) return;
    const given = signals.filter((signal) => signal !== undefined);
    if (given.some((signal) => signal.aborted)) return;
    paused();
    // While no work is pending, nothing else may keep the event loop alive.
    const hold = setInterval(() => {}, 2 ** 30);
    let resume = (): void => {};
    await new Promise<void>((resolve) => {
      resume = resolve;
      this.#waiting.add(resume);
      for (const signal of given) signal.addEventListener("abort", resume);
      this.#request?.resolve();
    });
    for (const signal of given) signal.removeEventListener("abort", resume);
    this.#waiting.delete(resume);
    clearInterval(hold);
  }
}
