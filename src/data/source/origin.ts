/** The location of a row, for messages. */
import { LowrankError } from "../../errors.js";

/** How messages number the rows of a source: lines of a file, rows from 1, or array elements from 0. */
export type Numbering = "line" | "row" | "index";

/** A file, a stream, or rows in memory. */
export interface Origin {
  /** The file's name, `standard input`, or the name of the option with the rows. */
  file: string;
  numbering: Numbering;
}

/** Formats the location of row `number`: `a.jsonl:3`, `a.parquet: row 3`, `data[3]`. */
export function describeRow({ file, numbering }: Origin, number: number): string {
  if (numbering === "line") return `${file}:${number}`;
  return numbering === "row" ? `${file}: row ${number}` : `${file}[${number}]`;
}

/** Formats the location of a row in a message that already names the source: `line 3`, `row 3`, `data[3]`. */
export function describeRowShortly({ file, numbering }: Origin, number: number): string {
  return numbering === "index" ? `${file}[${number}]` : `${numbering} ${number}`;
}

/** Returns an error about row `number`. */
export function createRowError(origin: Origin, number: number, problem: string): LowrankError {
  return new LowrankError("ERR_DATA_ROW", `${describeRow(origin, number)}: ${problem}`);
}
