/** What evaluations have come to: which was the best, and when it is time to end. */

/** As a checkpoint records it. */
export interface Judged {
  /** The least held-out loss since training began, and the step it was found at. */
  best: {
    step: number;
    loss: number;
    /** Where its checkpoint lies, if not beside the others. */ folder?: string | undefined;
  } | null;
  /** Evaluations since then. */
  since: number;
}

export class EarlyStopping {
  readonly #patience: number | undefined;
  #judged: Judged;

  /** Evaluations without improvement that end the run; undefined for none that do. */
  constructor(patience: number | undefined, judged: Judged = { best: null, since: 0 }) {
    this.#patience = patience;
    this.#judged = judged;
  }

  get judged(): Judged {
    return this.#judged;
  }

  get exhausted(): boolean {
    return this.#patience !== undefined && this.#judged.since >= this.#patience;
  }

  /**
   * Takes in the held-out loss after `step` steps. `save` asks for a checkpoint, to which the run will return; `end`
   * for the end. The model before its first step is no candidate.
   */
  judge(step: number, loss: number): { save: boolean; end: boolean } {
    if (step === 0) return { save: false, end: false };
    const { best, since } = this.#judged;
    const better = best === null || loss < best.loss;
    if (step !== best?.step)
      this.#judged = better ? { best: { step, loss }, since: 0 } : { best, since: since + 1 };
    return { save: better && this.#patience !== undefined, end: this.exhausted };
  }
}
