/** CSV (RFC 4180): a header with the field names, and a record per row. */
import type { CsvError, Info, Options, Parser } from "csv-parse";

import { LowrankError } from "../../errors.js";
import { streamText } from "../source/lines.js";
import { type Origin, createRowError } from "../source/origin.js";
import { checkHeader, FIELDS, LIST_FIELDS } from "./columns.js";
import { type Columns, LONGEST_ROW, type RawRow, type RecordReader } from "./records.js";

/** Field separators. Spreadsheets write semicolons in locales with a decimal comma. */
const DELIMITERS = [",", ";", "\t"];

type Cells = Record<string, string>;

interface Parsed {
  record: Cells;
  info: Info;
}

export const csv: RecordReader = {
  numbering: "line",
  async *read(source, signal, columns = "training") {
    const { parse } = await import("csv-parse");
    const origin: Origin = { file: source.name, numbering: "line" };
    const lines = new LineCounter();
    const createRow = ({ record, info }: Parsed): RawRow => {
      const number = lines.findStartLine(record, info.lines);
      return {
        value: columns === "all" ? convertLabel(record) : readFields(record, origin, number),
        number,
      };
    };
    let parser: Parser | undefined;
    let end = 0;
    try {
      // Parts are parsed as they arrive: a pipe may stay open without sending a byte.
      for await (const { text, read } of streamText(source, true, signal)) {
        // Errors are returned by `parsedPart`, in the call that causes them.
        parser ??= parse(makeParserOptions(text, origin, columns)).on("error", () => {});
        end = read;
        const { records, failure } = await parsePart(parser, text);
        if (records.length > 0) yield { rows: records.map(createRow), read };
        if (failure !== undefined) throw failure;
      }
      if (parser === undefined) return;
      parser.end();
      const rows: RawRow[] = [];
      for await (const record of parser as AsyncIterable<Parsed>) rows.push(createRow(record));
      if (rows.length > 0) yield { rows, read: end };
    } catch (cause) {
      throw convertFailure(cause, origin);
    } finally {
      parser?.destroy();
    }
  },
};

/** Parses a part of the text. Returns the records that end in it, and the error after them, if any. */
async function parsePart(parser: Parser, text: string): Promise<{ records: Parsed[]; failure?: unknown }> {
  const records: Parsed[] = [];
  const drain = (): void => {
    for (
      let record = parser.read() as Parsed | null;
      record !== null;
      record = parser.read() as Parsed | null
    )
      records.push(record);
  };
  const failure = await new Promise<unknown>((resolve) => {
    parser.write(text, (error) => resolve(error ?? undefined));
    // The parser accepts no more input until its records are read.
    drain();
  });
  drain();
  return { records, failure };
}

/** Computes line numbers of records from the parser's line count, which counts a quoted CRLF twice. */
class LineCounter {
  /** Quoted CRLFs so far. */
  #twice = 0;

  /** Returns the line on which a record begins; `end` is the parser's count at its end. */
  findStartLine(record: Cells, end: number): number {
    let breaks = 0;
    for (const value of Object.values(record)) {
      if (!value.includes("\n")) continue;
      breaks += value.split("\n").length - 1;
      this.#twice += value.split("\r\n").length - 1;
    }
    return end - this.#twice - breaks;
  }
}

function makeParserOptions(begin: string, origin: Origin, columns: Columns): Options {
  return {
    delimiter: detectDelimiter(begin, columns),
    record_delimiter: ["\r\n", "\n"],
    columns: (header: string[]) => checkHeader(header, origin, columns),
    info: true,
    skip_empty_lines: true,
    max_record_size: LONGEST_ROW,
  };
}

/** Returns the separator that splits the header into names of which one is known; by default a comma. */
function detectDelimiter(text: string, columns: Columns): string {
  const [header = ""] = text.split(/\r?\n/, 1);
  const nameOf = (cell: string): string =>
    cell
      .trim()
      .replace(/^"(.*)"$/, "$1")
      .trim();
  const isHeader = (delimiter: string): boolean => {
    const names = header.split(delimiter).map(nameOf);
    return columns === "all" ? names.includes("text") : names.some((name) => FIELDS.includes(name));
  };
  return DELIMITERS.find(isHeader) ?? ",";
}

/** Returns a record's fields, with a whole-number label as a number. */
function convertLabel(record: Cells): Record<string, unknown> {
  const { label } = record;
  const isNumber = label !== undefined && /^(?:0|-?[1-9]\d{0,14})$/.test(label);
  return isNumber ? { ...record, label: Number(label) } : { ...record };
}

/** Returns a record's fields, with lists parsed from JSON and whole-number labels as numbers. */
function readFields(record: Cells, origin: Origin, number: number): Record<string, unknown> {
  const fields = convertLabel(record);
  for (const [name, text] of Object.entries(record)) {
    if (!LIST_FIELDS.has(name)) continue;
    // An empty cell means a row without the list.
    if (text === "" && (name === "tools" || name === "history")) delete fields[name];
    else fields[name] = parseCell(text, name, origin, number);
  }
  return fields;
}

function parseCell(text: string, name: string, origin: Origin, number: number): unknown {
  try {
    return JSON.parse(text);
  } catch {
    const is = text === "" ? "is empty" : "is not JSON";
    throw createRowError(
      origin,
      number,
      `"${name}" ${is}; a CSV file holds a list as JSON text (json.dumps)`,
    );
  }
}

const PROBLEMS: Readonly<Record<string, string>> = {
  CSV_QUOTE_NOT_CLOSED: "a quoted field has no closing quote",
  CSV_MAX_RECORD_SIZE: `the row is longer than ${LONGEST_ROW >> 20} MiB, or a quote is not closed`,
  INVALID_OPENING_QUOTE: "a quote inside an unquoted field; quote the field and double its quotes",
  CSV_INVALID_CLOSING_QUOTE: "text after a field's closing quote; double the quotes within a field",
};

function convertFailure(cause: unknown, origin: Origin): unknown {
  const { code, lines, record, columns } = cause as CsvError & {
    lines?: number;
    record?: unknown[];
    columns?: unknown[];
  };
  if (typeof code !== "string" || cause instanceof LowrankError || lines === undefined) return cause;
  if (code === "CSV_RECORD_INCONSISTENT_COLUMNS") {
    const what = `the row has ${record?.length} fields, but the header has ${columns?.length}`;
    return createRowError(origin, lines, `${what}; quote fields with commas or line breaks`);
  }
  return createRowError(origin, lines, PROBLEMS[code] ?? (cause as Error).message);
}
