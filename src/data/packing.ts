/** Packs several rows into one sequence. */
import { shuffleEpoch } from "./shuffle.js";
import { type Example, IGNORED } from "./store.js";

export interface PackingOptions {
  /** The maximum tokens of a sequence. No row is longer. */
  maxLength: number;
  seed: number;
  /**
   * Rows longer than this are not packed with shorter ones, because the model uses other rotary frequencies for them;
   * no limit by default.
   */
  separateAbove?: number | undefined;
}

/** The minimum rows of a packing window, and the minimum number of sequences that they fill. */
const WINDOW = { rows: 1024, sequences: 256 };
/** An epoch number that no epoch has. */
const NO_EPOCH = -1;

/**
 * Assigns rows to sequences by first-fit decreasing (at most 11/9 of the optimum, Johnson 1973) within windows of the
 * shuffled rows. Windows bound the search, and keep rows of equal length out of file order; they are so large that a
 * half-empty last sequence does not matter.
 *
 * The assignment is the same in every epoch, so that all epochs have the same number of steps. Rows do not attend to
 * their neighbours, and the sequences of a step are drawn again in each epoch.
 */
export class Packing {
  /** The number of sequences. */
  readonly length: number;
  readonly #rows: Uint32Array;
  readonly #ends: Uint32Array;

  /** `lengths` are the rows' token counts. */
  constructor(lengths: Uint32Array, { maxLength, seed, separateAbove = Infinity }: PackingOptions) {
    const order = shuffleEpoch(lengths.length, seed, NO_EPOCH);
    const sequences: number[][] = [];
    for (let from = 0; from < order.length;) {
      let [to, tokens] = [from, 0];
      while (to < order.length && (to - from < WINDOW.rows || tokens < WINDOW.sequences * maxLength))
        tokens += lengths[order[to++] as number] as number;
      sequences.push(...packFirstFit(order.subarray(from, to), lengths, maxLength, separateAbove));
      from = to;
    }
    this.length = sequences.length;
    this.#rows = Uint32Array.from(sequences.flat());
    let end = 0;
    this.#ends = Uint32Array.from(sequences, ({ length }) => (end += length));
  }

  /** Returns the rows of a sequence. */
  at(sequence: number): Uint32Array {
    return this.#rows.subarray(this.#ends[sequence - 1] ?? 0, this.#ends[sequence]);
  }
}

/** Places each row, longest first, into the first sequence with enough room. */
function packFirstFit(
  rows: Uint32Array,
  lengths: Uint32Array,
  maxLength: number,
  separateAbove: number,
): number[][] {
  const length = (row: number): number => lengths[row] as number;
  const sequences: { rows: number[]; room: number; long: boolean }[] = [];
  for (const row of [...rows].sort((a, b) => length(b) - length(a))) {
    const long = length(row) > separateAbove;
    const open = sequences.find((sequence) => sequence.room >= length(row) && sequence.long === long);
    if (open === undefined) {
      sequences.push({ rows: [row], room: maxLength - length(row), long });
      continue;
    }
    open.rows.push(row);
    open.room -= length(row);
  }
  return sequences.map((sequence) => sequence.rows);
}

/**
 * Concatenates rows. The first label of each is ignored, so that the end of one row is not trained to predict the next.
 */
export function joinExamples(rows: readonly Example[]): Example {
  if (rows.length === 1) return rows[0] as Example;
  const length = rows.reduce((sum, { ids }) => sum + ids.length, 0);
  const [ids, labels] = [new Int32Array(length), new Int32Array(length)];
  let offset = 0;
  for (const row of rows) {
    ids.set(row.ids, offset);
    labels.set(row.labels, offset);
    labels[offset] = IGNORED;
    offset += row.ids.length;
  }
  return { ids, labels, trained: rows.reduce((sum, { trained }) => sum + trained, 0) };
}
