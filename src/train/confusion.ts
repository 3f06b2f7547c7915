import type { ClassScores } from "./evaluate.js";

/** A classifier's confusion matrix and the scores computed from it. */
export class Confusion {
  readonly labels: readonly string[];
  readonly #counts: number[];

  constructor(labels: readonly string[]) {
    this.labels = labels;
    this.#counts = Array.from({ length: labels.length ** 2 }, () => 0);
  }

  /** Counts a row of class `truth` that was classified as `predicted`. */
  add(truth: number, predicted: number): void {
    const index = truth * this.labels.length + predicted;
    this.#counts[index] = (this.#counts[index] ?? 0) + 1;
  }

  get scores(): ClassScores {
    const { accuracy, macroF1, labels, table } = this;
    const withoutRows = labels.filter((_, i) => table[i]?.every((count) => count === 0));
    return { accuracy, macroF1, labels, confusion: table, withoutRows };
  }

  /** Row counts, indexed by [truth][predicted]. */
  get table(): number[][] {
    const n = this.labels.length;
    return this.labels.map((_, truth) => this.#counts.slice(truth * n, (truth + 1) * n));
  }

  /** The share of correctly classified rows. */
  get accuracy(): number {
    const right = this.table.reduce((sum, row, i) => sum + (row[i] ?? 0), 0);
    return right / this.#counts.reduce((sum, count) => sum + count, 0);
  }

  /**
   * The mean F1 of the classes. F1 is twice the number of correct rows, divided by the sum of the class's true rows and
   * its predicted rows. As in scikit-learn, a class without true or predicted rows is ignored.
   */
  get macroF1(): number {
    const { table } = this;
    const scores = table.flatMap((row, i) => {
      const [truths, predictions] = [row, table.map((other) => other[i] ?? 0)].map((part) =>
        part.reduce((sum, count) => sum + count, 0),
      ) as [number, number];
      return truths + predictions === 0 ? [] : [(2 * (row[i] ?? 0)) / (truths + predictions)];
    });
    return scores.reduce((sum, score) => sum + score, 0) / scores.length;
  }
}
