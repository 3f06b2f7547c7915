/** Detects a training run that has gone wrong while its numbers are still finite. */

import { optionName } from "../arguments/option-name.js";

/** The number of steps over which the loss is judged. Also the number of steps without a gradient that is reported. */
const WINDOW = 10;
/** The number of consecutive steps with an identical loss that is reported. */
const CONSTANT_STEPS = 50;
/** Consecutive steps after which a collapse is reported. */
const COLLAPSED_STEPS = 3;
/** The largest gradient norm of a collapsed model, relative to the norm before training. */
const VANISHED = 1e-6;
/** The relative amount by which a loss must be below another to count as better. */
const BETTER = 1e-3;
/** Relative deviation of a mean loss from ln V that rounding in f32 explains. */
const ROUNDING = 1e-6;

/** The figures of one optimizer step. */
export interface StepFigures {
  step: number;
  loss: number;
  gradNorm: number;
  learningRate: number;
  /** The number of tokens or rows in the mean loss. */
  trained: number;
}

/** The figures of the model before training; a checkpoint stores them. */
export interface Reference {
  /** The highest loss before the first update. */
  loss: number;
  /** The largest gradient norm before the first update; unknown in checkpoints of versions that did not store it. */
  gradNorm?: number | undefined;
}

/** The judgement of the weights that a step ran on. */
export interface Verdict {
  /** Whether the loss is in the range of a healthy run. */
  sound: boolean;
  /** A message for the user, once for each occurrence. */
  warning?: string | undefined;
}

/**
 * Watches the loss and the gradient norm.
 *
 * The loss bound uses the loss of guessing, which is ln V for V tokens or classes. Let L be the loss before training, and
 * n the number of tokens or rows in a step's mean. The bound is L + max((ln V - L) / 2, 3 / sqrt(n), L / 10). Above the
 * first term the model has lost half of its advantage over guessing, which the order of the data cannot explain. The
 * second term is the noise of a step: the loss of one token or row deviates by less than 3. The third allows for texts
 * that are harder than the first. A single step may exceed the bound, so divergence means that the median of 10 steps
 * exceeds it. L is the highest loss before the first update with a learning rate above 0, so that an update cannot raise
 * its own bound.
 *
 * The bound misses a model that ignores its input if L was above ln V: activations that overflow become zeros after the
 * next norm, so that the loss is ln V and the gradient 0. Such a step is a collapse: the gradient norm is below 1e-6 of
 * the largest one before training, and the loss is no better than L or than guessing. A model that has learnt its data
 * also has a small gradient, but a lower loss.
 */
export class Divergence {
  readonly #guessing: number | undefined;
  readonly #zeroLimit: number;
  readonly #collapseLimit: number;
  #reference: number | undefined;
  /** The largest gradient norm before the first update. */
  #gradient: number | undefined;
  /** Whether the weights have been updated since the reference was begun. */
  #touched: boolean;
  #window: StepFigures[] = [];
  #exceeded = false;
  #collapsed = 0;
  #zeros = 0;
  #constant = 0;
  #highestRate = 0;

  /**
   * `guessing` is ln V; without it the loss has no bound. `reference` comes from an earlier part of the run, and `steps`
   * is the length of the run.
   */
  constructor({
    guessing,
    reference,
    steps = Infinity,
  }: {
    guessing?: number | undefined;
    reference?: Reference | undefined;
    steps?: number | undefined;
  } = {}) {
    this.#guessing = guessing;
    this.#reference = reference?.loss;
    this.#gradient = reference?.gradNorm;
    this.#touched = reference !== undefined;
    this.#zeroLimit = Math.max(1, Math.min(WINDOW, steps));
    this.#collapseLimit = Math.max(1, Math.min(COLLAPSED_STEPS, steps));
  }

  /** Loss and gradient norm before training; undefined until a step or an evaluation has computed a loss. */
  get reference(): Reference | undefined {
    return this.#reference === undefined ? undefined : { loss: this.#reference, gradNorm: this.#gradient };
  }

  /** Whether the run has diverged as of the last step. */
  get diverged(): boolean {
    return this.#exceeded || this.#collapsed >= this.#collapseLimit;
  }

  /** The highest loss of a healthy run; Infinity without `guessing` or a reference. */
  get bound(): number {
    if (this.#guessing === undefined || this.#reference === undefined) return Infinity;
    const reference = this.#reference;
    const size = this.#window.length === 0 ? 1 : computeMedian(this.#window.map(({ trained }) => trained));
    const noise = 3 / Math.sqrt(Math.max(size, 1));
    return reference + Math.max((this.#guessing - reference) / 2, noise, reference / 10);
  }

  /** Adds a held-out loss of the untrained model. */
  addUntrained(loss: number): void {
    if (!this.#touched && Number.isFinite(loss)) this.#raise(loss);
  }

  /** Adds the finite figures of the next step. */
  add(figures: StepFigures): Verdict {
    const { step, loss, gradNorm, learningRate } = figures;
    const trained = this.#touched;
    if (!trained) {
      this.#raise(loss);
      this.#gradient = Math.max(this.#gradient ?? 0, gradNorm);
      this.#touched = learningRate > 0;
    }
    this.#countConstant(figures);
    this.#window = [...this.#window, figures].slice(-WINDOW);
    this.#collapsed = trained && this.#isCollapse(loss, gradNorm) ? this.#collapsed + 1 : 0;
    const warnings = [
      this.#findLossWarning(step, learningRate),
      this.#findCollapseWarning(figures),
      this.#findGradientWarning(step, gradNorm),
      this.#findConstantWarning(step, loss),
    ];
    return {
      sound: loss <= this.bound && this.#collapsed === 0,
      warning: warnings.find((warning) => warning !== undefined),
    };
  }

  /** Judges the weights after the last step by one loss: `good`, `bad`, or `unknown` for a loss above the bound. */
  judge(loss: number): "good" | "bad" | "unknown" {
    if (this.#touched && this.#isNoBetter(loss) && (this.#collapsed > 0 || this.#isUniform(loss)))
      return "bad";
    return loss <= this.bound ? "good" : "unknown";
  }

  #raise(loss: number): void {
    this.#reference = Math.max(this.#reference ?? loss, loss);
  }

  /** Whether a loss is no better than the loss before training or than guessing. */
  #isNoBetter(loss: number): boolean {
    const least = Math.min(this.#reference ?? Infinity, this.#guessing ?? Infinity);
    return Number.isFinite(least) && loss >= least - BETTER * Math.abs(least);
  }

  /** Whether a loss equals ln V although the loss before training did not. */
  #isUniform(loss: number): boolean {
    const guessing = this.#guessing ?? 0;
    const isNear = (value: number): boolean => Math.abs(value - guessing) <= ROUNDING * guessing;
    return guessing > 0 && isNear(loss) && !isNear(this.#reference ?? guessing);
  }

  #isCollapse(loss: number, gradNorm: number): boolean {
    // A gradient that was 0 from the start has its own warning and is no deterioration.
    if (this.#gradient === 0 || !this.#isNoBetter(loss)) return false;
    return this.#gradient === undefined
      ? gradNorm === 0 && this.#isUniform(loss)
      : gradNorm <= VANISHED * this.#gradient;
  }

  #findLossWarning(step: number, learningRate: number): string | undefined {
    if (this.#window.length < WINDOW) return undefined;
    const middle = computeMedian(this.#window.map(({ loss }) => loss));
    const before = this.#exceeded;
    this.#exceeded = middle > this.bound;
    if (!this.#exceeded || before) return undefined;
    return (
      `step ${step}: training has diverged: the median loss of the last ${WINDOW} steps is ${middle.toFixed(2)}; ` +
      this.#describeRemedy(learningRate)
    );
  }

  #findCollapseWarning({ step, loss, gradNorm, learningRate }: StepFigures): string | undefined {
    if (this.#collapsed !== this.#collapseLimit) return undefined;
    const gradient = gradNorm === 0 ? "0" : gradNorm.toExponential(1);
    return (
      `step ${step}: training has diverged: the gradient is ${gradient}, so that nothing is learned any more, and the loss ` +
      `is ${loss.toFixed(2)}; ${this.#describeRemedy(learningRate)}`
    );
  }

  /** Returns the losses to compare with, and the remedy. */
  #describeRemedy(learningRate: number): string {
    const before = `it was ${(this.#reference as number).toFixed(2)} before training`;
    const guess = this.#guessing === undefined ? "" : `, and guessing gives ${this.#guessing.toFixed(2)}`;
    return `${before}${guess}; lower the learning rate (${learningRate.toPrecision(2)} at this step; ${optionName("optimizer.lr")}) or lengthen the warm-up (${optionName("warmup")})`;
  }

  #findGradientWarning(step: number, gradNorm: number): string | undefined {
    this.#zeros = gradNorm === 0 ? this.#zeros + 1 : 0;
    if (this.#zeros !== this.#zeroLimit || this.diverged) return undefined;
    const what = this.#zeros === 1 ? "the gradient is 0" : `the gradient was 0 for ${this.#zeros} steps`;
    return (
      `step ${step}: ${what}: nothing is being learned; check that the trained layers affect the loss, that weights ` +
      `and products are not rounded to 0 (f16), and that the loss is not 0 already`
    );
  }

  /** Counts steps with a loss identical to the previous step's, although the update between them was large. */
  #countConstant({ loss, learningRate }: StepFigures): void {
    const before = this.#window.at(-1);
    this.#highestRate = Math.max(this.#highestRate, learningRate);
    // Small updates, as in a warm-up, may change a loss by less than its last bit.
    const updated = (before?.learningRate ?? 0) >= this.#highestRate / 2 && this.#highestRate > 0;
    this.#constant = updated && before?.loss === loss && this.#isNoBetter(loss) ? this.#constant + 1 : 0;
  }

  #findConstantWarning(step: number, loss: number): string | undefined {
    if (this.#constant !== CONSTANT_STEPS - 1 || this.#zeros > 0 || this.diverged) return undefined;
    return (
      `step ${step}: the loss has been ${loss} for ${CONSTANT_STEPS} steps: the updates do not change it; check that the learning ` +
      `rate (${optionName("optimizer.lr")}) is not too small for the weights' precision and that the loss depends on the data`
    );
  }
}

function computeMedian(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  const [low, high] = [sorted[half - 1], sorted[half]] as [number, number];
  return sorted.length % 2 === 1 ? high : (low + high) / 2;
}
