/** Detects a training run that has gone wrong while its numbers are still finite. */

import { optionName } from "../option-name.js";

/** Steps over which the loss is judged, and steps without a gradient that are reported. */
const WINDOW = 10;

/** The figures of one optimizer step. */
export interface StepFigures {
  step: number;
  loss: number;
  gradNorm: number;
  learningRate: number;
  /** Tokens or rows that the loss is the mean over. */
  trained: number;
}

/** The judgement of the weights that a step ran on. */
export interface Verdict {
  /** Whether the loss is one that a healthy run has. */
  sound: boolean;
  /** A message for the user, once for each occurrence. */
  warning?: string | undefined;
}

/**
 * Watches the loss and the gradient norm.
 *
 * The loss bound needs the loss of guessing, which is ln V for V tokens or classes. Let L be the loss before training and
 * n the number of tokens or rows that a step averages over. The bound is L + max((ln V - L) / 2, 3 / sqrt(n), L / 10):
 * above the first term the model has lost half of its advantage over guessing, which no order of the data explains; the
 * second is the noise of a step, as the loss of one token or row deviates by less than 3; the third allows for texts that
 * are harder than the first. A single step may still exceed the bound, so divergence is the median of 10 steps above it.
 * L is the highest loss seen before the first update with a learning rate above 0, so that an update cannot raise its own
 * bound.
 */
export class Divergence {
  readonly #guessing: number | undefined;
  readonly #zeroLimit: number;
  #reference: number | undefined;
  /** Whether the weights have been updated since the reference was begun. */
  #touched: boolean;
  #window: StepFigures[] = [];
  #diverged = false;
  #zeros = 0;

  /**
   * `guessing` is ln V; without it the loss has no bound. `reference` is L as an earlier part of the run found it, and
   * `steps` the length of the run.
   */
  constructor({
    guessing,
    reference,
    steps = Infinity,
  }: {
    guessing?: number | undefined;
    reference?: number | undefined;
    steps?: number | undefined;
  } = {}) {
    this.#guessing = guessing;
    this.#reference = reference;
    this.#touched = reference !== undefined;
    this.#zeroLimit = Math.max(1, Math.min(WINDOW, steps));
  }

  /** The loss before training; undefined until a step or an evaluation has computed it. */
  get reference(): number | undefined {
    return this.#reference;
  }

  /** Whether the run has diverged as of the last step. */
  get diverged(): boolean {
    return this.#diverged;
  }

  /** The highest loss of a healthy run; Infinity while nothing is known. */
  get bound(): number {
    if (this.#guessing === undefined || this.#reference === undefined) return Infinity;
    const reference = this.#reference;
    const size = this.#window.length === 0 ? 1 : median(this.#window.map(({ trained }) => trained));
    const noise = 3 / Math.sqrt(Math.max(size, 1));
    return reference + Math.max((this.#guessing - reference) / 2, noise, reference / 10);
  }

  /** Takes in a held-out loss of the untrained model. */
  untrained(loss: number): void {
    if (!this.#touched && Number.isFinite(loss)) this.#raise(loss);
  }

  /** Takes in the finite figures of the next step. */
  add(figures: StepFigures): Verdict {
    const { step, loss, gradNorm, learningRate } = figures;
    if (!this.#touched) {
      this.#raise(loss);
      this.#touched = learningRate > 0;
    }
    this.#window = [...this.#window, figures].slice(-WINDOW);
    const warning = this.#lossWarning(step, learningRate) ?? this.#gradientWarning(step, gradNorm);
    return { sound: loss <= this.bound, warning };
  }

  #raise(loss: number): void {
    this.#reference = Math.max(this.#reference ?? loss, loss);
  }

  #lossWarning(step: number, learningRate: number): string | undefined {
    if (this.#window.length < WINDOW) return undefined;
    const middle = median(this.#window.map(({ loss }) => loss));
    const before = this.#diverged;
    this.#diverged = middle > this.bound;
    if (!this.#diverged || before) return undefined;
    const [now, start, guess] = [middle, this.#reference as number, this.#guessing as number].map((value) =>
      value.toFixed(2),
    );
    return (
      `step ${step}: training has diverged: the median loss of the last ${WINDOW} steps is ${now}; it was ${start} ` +
      `before training, and guessing gives ${guess}; lower the learning rate (${learningRate.toPrecision(2)} at this step; ${optionName("optimizer.lr")}) or lengthen the warm-up (${optionName("warmup")})`
    );
  }

  #gradientWarning(step: number, gradNorm: number): string | undefined {
    this.#zeros = gradNorm === 0 ? this.#zeros + 1 : 0;
    if (this.#zeros !== this.#zeroLimit) return undefined;
    const what = this.#zeros === 1 ? "the gradient is 0" : `the gradient was 0 for ${this.#zeros} steps`;
    return (
      `step ${step}: ${what}: nothing is being learned; check that the trained layers affect the loss, that weights ` +
      `and products are not rounded to 0 (f16), and that the loss is not 0 already`
    );
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  const [low, high] = [sorted[half - 1], sorted[half]] as [number, number];
  return sorted.length % 2 === 1 ? high : (low + high) / 2;
}
