/** The number of steps over which the speed is averaged. */
const WINDOW = 10;

/** The speed of the last steps, excluding pauses between them. */
export class Pace {
  readonly #steps: { seconds: number; tokens: number }[] = [];
  #lastTime = performance.now();

  /** Records the end of a step. */
  add(tokens: number): void {
    const now = performance.now();
    this.#steps.push({ seconds: (now - this.#lastTime) / 1000, tokens });
    if (this.#steps.length > WINDOW) this.#steps.shift();
    this.#lastTime = now;
  }

  /** Excludes the time since the last step, which an evaluation, a checkpoint or a pause took. */
  pause(): void {
    this.#lastTime = performance.now();
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
