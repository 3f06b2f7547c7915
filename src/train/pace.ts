/** How many steps the speed is taken over. */
const WINDOW = 10;

/** How fast steps have come lately; pauses between them don't count. */
export class Pace {
  readonly #steps: { seconds: number; tokens: number }[] = [];
  #since = performance.now();

  /** A step has ended. */
  add(tokens: number): void {
    const now = performance.now();
    this.#steps.push({ seconds: (now - this.#since) / 1000, tokens });
    if (this.#steps.length > WINDOW) this.#steps.shift();
    this.#since = now;
  }

  /** Something else took the time until now: an evaluation, a checkpoint, a pause. */
  pause(): void {
    this.#since = performance.now();
  }

  get tokensPerSecond(): number {
    return this.#sum("tokens") / Math.max(this.#sum("seconds"), 1e-9);
  }

  get secondsPerStep(): number {
    return this.#sum("seconds") / Math.max(this.#steps.length, 1);
  }

  #sum(key: "seconds" | "tokens"): number {
    return this.#steps.reduce((sum, step) => sum + step[key], 0);
  }
}
