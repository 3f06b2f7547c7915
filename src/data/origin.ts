/** Where a row comes from, as messages say it. */
import { LowrankError } from "../errors.js";

/** How messages count the rows of a source: lines of a file, its rows from 1, or elements of an array from 0. */
export type Numbering = "line" | "row" | "index";

/** A file, a stream or rows in memory. */
export interface Origin {
  /** The file's name, `standard input`, or the option that the rows were given as. */
  file: string;
  numbering: Numbering;
}

/** Row `number` of a source: `a.jsonl:3`, `a.parquet: row 3`, `data[3]`. */
export function rowAt({ file, numbering }: Origin, number: number): string {
  if (numbering === "line") return `${file}:${number}`;
  return numbering === "row" ? `${file}: row ${number}` : `${file}[${number}]`;
}

/** The same within a message that has named the source: `line 3`, `row 3`, `data[3]`. */
export function shortRowAt({ file, numbering }: Origin, number: number): string {
  return numbering === "index" ? `${file}[${number}]` : `${numbering} ${number}`;
}

/** An error of row `number`. */
export function rowError(origin: Origin, number: number, problem: string): LowrankError {
  return new LowrankError("ERR_DATA_ROW", `${rowAt(origin, number)}: ${problem}`);
}
