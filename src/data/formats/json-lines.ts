/** JSON lines: one JSON object per line, ended by LF or CRLF; blank lines are skipped. */
import { LowrankError } from "../../errors.js";
import { streamText } from "../source/lines.js";
import { type Numbering, type Origin, describeRow, createRowError } from "../source/origin.js";
import type { RawRow, RecordReader } from "./records.js";

/** Returns a reader of JSON lines. Rows in memory are numbered by `index`. */
export function createJsonLinesReader(
  numbering: Extract<Numbering, "line" | "index"> = "line",
): RecordReader {
  return {
    numbering,
    async *read(source, signal) {
      const origin = { file: source.name, numbering };
      const shift = numbering === "index" ? 1 : 0;
      let hasBegun = (source.position?.offset ?? 0) > 0;
      for await (const { text, line, read } of streamText(source, true, signal)) {
        hasBegun ||= checkBegin(text, line, origin);
        yield { rows: parseLines(text, line - shift, origin), read };
      }
    },
  };
}

/** Rejects a file that contains an array instead of lines. Returns whether the text contains a row. */
function checkBegin(text: string, line: number, origin: Origin): boolean {
  const index = text.search(/\S/);
  if (index < 0 || text[index] !== "[") return index >= 0;
  const number = line + text.slice(0, index).split("\n").length - 1;
  throw createRowError(
    origin,
    number,
    "the file begins with an array; if its elements are the rows, give the data's format, json",
  );
}

/** Parses complete lines; `first` is the number of the first. Throws `ERR_DATA_ROW` for a line that is not JSON. */
export function parseLines(text: string, first: number, origin: Origin): RawRow[] {
  const rows: RawRow[] = [];
  let number = first;
  for (const line of text.split("\n")) {
    const trimmed = line.trim();
    if (trimmed !== "") rows.push({ value: parseLine(trimmed, origin, number), number });
    number++;
  }
  return rows;
}

function parseLine(text: string, origin: Origin, number: number): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    const start = text.length > 40 ? `${text.slice(0, 40)}…` : text;
    const hint = endsInComma(text) ? `; ${NO_COMMA}` : isUnfinished(text) ? `; ${ONE_LINE}` : "";
    throw new LowrankError("ERR_DATA_ROW", `${describeRow(origin, number)}: not JSON: ${start}${hint}`, {
      cause,
    });
  }
}

/** Whether a line is the beginning of an object that spans several lines, as in indented JSON. */
function isUnfinished(text: string): boolean {
  return /^\{$|^\{.*[,[{:]$/.test(text);
}

/** Whether a line is a complete value and a comma, as in an array without its brackets. */
function endsInComma(text: string): boolean {
  if (!text.endsWith(",")) return false;
  try {
    JSON.parse(text.slice(0, -1));
    return true;
  } catch {
    return false;
  }
}

const NO_COMMA =
  "the line ends in a comma; remove the commas at the ends of lines, or write an array of rows, [{…}, {…}], as a .json file";

const ONE_LINE =
  "the object continues on the next line, and a row is an object on one line; write one row a line (jq -c . FILE), " +
  "or an array of rows, [{…}, {…}], as a .json file";
