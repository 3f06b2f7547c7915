/** Rows as a file holds them, before their fields are checked. */
import type { Source } from "../source.js";
import type { Numbering } from "../origin.js";

/** A parsed row, and its number in the source. */
export interface RawRow {
  value: unknown;
  number: number;
}

/** Consecutive rows, and the bytes of the source that were read up to their end. */
export interface RawRows {
  rows: RawRow[];
  read: number;
}

/** The columns of a table to read: those that training uses, or all, which are then to have a text each. */
export type Columns = "training" | "all";

/** Reads the rows of one kind of file. */
export interface RecordReader {
  numbering: Numbering;
  /**
   * The rows of a source from its beginning. `columns` of a table are those of training unless given.
   *
   * Errors: `ERR_FILE_FORMAT` for a file that is damaged or of another kind; `ERR_DATA_ROW` for a row that cannot be
   * parsed; the signal's reason.
   */
  read(source: Source, signal: AbortSignal | undefined, columns?: Columns): AsyncIterable<RawRows>;
}

/** The longest row, in characters: V8 has no string of twice as many. */
export const LONGEST_ROW = 256 << 20;
