/** Early stopping: tracks the best evaluation and decides when to end the run. */
import type { EarlyStoppingState } from "./output/checkpoint.js";

export class EarlyStopping {
  readonly #patience: number | undefined;
  #state: EarlyStoppingState;

  /** `patience` is the number of evaluations without improvement that ends the run; undefined never ends it. */
  constructor(patience: number | undefined, judged: EarlyStoppingState = { best: null, since: 0 }) {
    this.#patience = patience;
    this.#state = judged;
  }

  get judged(): EarlyStoppingState {
    return this.#state;
  }

  get exhausted(): boolean {
    return this.#patience !== undefined && this.#state.since >= this.#patience;
  }

  /**
   * Records the held-out loss after `step` steps. `save` requests a checkpoint that the run may restore, and `end`
   * requests the end of the run. The untrained model at step 0 is not a candidate.
   */
  judge(step: number, loss: number): { save: boolean; end: boolean } {
    if (step === 0) return { save: false, end: false };
    const { best, since } = this.#state;
    const better = best === null || loss < best.loss;
    if (step !== best?.step)
      this.#state = better ? { best: { step, loss }, since: 0 } : { best, since: since + 1 };
    return { save: better && this.#patience !== undefined, end: this.exhausted };
  }
}
