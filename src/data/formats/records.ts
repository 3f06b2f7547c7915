/** Rows of a file before their fields are checked. */
import type { ByteSource } from "../source/source.js";
import type { Numbering } from "../source/origin.js";

/** A parsed row, and its number in the source. */
export interface RawRow {
  value: unknown;
  number: number;
  /** Unknown fields that the reader did not read; undefined for none. */
  skipped?: readonly string[] | undefined;
}

/** Consecutive rows, and the bytes of the source read up to their end. */
export interface RawRows {
  rows: RawRow[];
  read: number;
}

/** The columns of a table to read: those used in training, or all, which must include `text`. */
export type Columns = "training" | "all";

/** Reads the rows of one file format. */
export interface RecordReader {
  numbering: Numbering;
  /**
   * Reads the rows of a source from its beginning. `columns` is `training` by default.
   *
   * Throws `ERR_FILE_FORMAT` for a file that is damaged or of another format; `ERR_DATA_ROW` for a row that cannot be
   * parsed; the signal's reason.
   */
  read(source: ByteSource, signal: AbortSignal | undefined, columns?: Columns): AsyncIterable<RawRows>;
}

/** The maximum length of a row, in characters, about half of V8's maximum string length. */
export const LONGEST_ROW = 256 << 20;
