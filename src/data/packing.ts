/** Rows that share sequences. */
import { epochOrder } from "./shuffle.js";
import { type Example, IGNORED } from "./store.js";

export interface PackingOptions {
  /** Tokens that a sequence may have. No row has more. */
  maxLength: number;
  seed: number;
  /**
   * Rows longer than this share no sequence with shorter ones, since a model reads them by other frequencies; none
   * unless given.
   */
  apart?: number | undefined;
}

/** Rows among which company is looked for, at least; and sequences that they fill, at least. */
const WINDOW = { rows: 1024, sequences: 256 };
/** No epoch's number. */
const NO_EPOCH = -1;

/**
 * Which rows share a sequence: by first fit decreasing (at most 11/9 of the fewest sequences, Johnson 1973) within windows
 * of the rows in the seed's order. A window keeps the search short, and rows of alike length from standing in the file's
 * order; it is so large that its last sequence, which may stay half empty, does not count. The rows of a sequence are the
 * same in every epoch, so that an epoch has as many steps as any other: no row sees its neighbours, and which sequences
 * make a step is drawn anew.
 */
export class Packing {
  /** How many sequences there are. */
  readonly length: number;
  readonly #rows: Uint32Array;
  readonly #ends: Uint32Array;

  /** `lengths` are the rows' tokens. */
  constructor(lengths: Uint32Array, { maxLength, seed, apart = Infinity }: PackingOptions) {
    const order = epochOrder(lengths.length, seed, NO_EPOCH);
    const sequences: number[][] = [];
    for (let from = 0; from < order.length;) {
      let [to, tokens] = [from, 0];
      while (to < order.length && (to - from < WINDOW.rows || tokens < WINDOW.sequences * maxLength))
        tokens += lengths[order[to++] as number] as number;
      sequences.push(...firstFit(order.subarray(from, to), lengths, maxLength, apart));
      from = to;
    }
    this.length = sequences.length;
    this.#rows = Uint32Array.from(sequences.flat());
    let end = 0;
    this.#ends = Uint32Array.from(sequences, ({ length }) => (end += length));
  }

  /** The rows of a sequence, in their order. */
  at(sequence: number): Uint32Array {
    return this.#rows.subarray(this.#ends[sequence - 1] ?? 0, this.#ends[sequence]);
  }
}

/** Puts each row, the longest first, into the first sequence that has room. */
function firstFit(rows: Uint32Array, lengths: Uint32Array, maxLength: number, apart: number): number[][] {
  const length = (row: number): number => lengths[row] as number;
  const sequences: { rows: number[]; room: number; long: boolean }[] = [];
  for (const row of [...rows].sort((a, b) => length(b) - length(a))) {
    const long = length(row) > apart;
    const open = sequences.find((one) => one.room >= length(row) && one.long === long);
    if (open === undefined) {
      sequences.push({ rows: [row], room: maxLength - length(row), long });
      continue;
    }
    open.rows.push(row);
    open.room -= length(row);
  }
  return sequences.map((one) => one.rows);
}

/** Several rows one behind the other. The first label of each is ignored: the end of one row does not say how the next begins. */
export function joinedExamples(rows: readonly Example[]): Example {
  if (rows.length === 1) return rows[0] as Example;
  const length = rows.reduce((sum, { ids }) => sum + ids.length, 0);
  const [ids, labels] = [new Int32Array(length), new Int32Array(length)];
  let at = 0;
  for (const row of rows) {
    ids.set(row.ids, at);
    labels.set(row.labels, at);
    labels[at] = IGNORED;
    at += row.ids.length;
  }
  return { ids, labels, trained: rows.reduce((sum, { trained }) => sum + trained, 0) };
}
