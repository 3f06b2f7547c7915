/** CSV (RFC 4180): a header that names the fields of rows, and a record a row. */
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { CsvError, Info, Options } from "csv-parse";

import { LowrankError } from "../../errors.js";
import { textOf } from "../lines.js";
import { type Origin, rowError } from "../origin.js";
import { checkHeader, FIELDS, LIST_FIELDS } from "./columns.js";
import { LONGEST_ROW, type RawRow, type RecordReader } from "./records.js";

/** Separators of fields. Spreadsheets write semicolons where the comma is the decimal point. */
const DELIMITERS = [",", ";", "\t"];
/** Records that are handed on together. */
const BATCH = 256;

type Cells = Record<string, string>;

export const csv: RecordReader = {
  numbering: "line",
  async *read(source, signal) {
    const { parse } = await import("csv-parse");
    const origin: Origin = { file: source.name, numbering: "line" };
    // A pipe may stay open without a byte: what waits for it is ended by this signal.
    const ended = new AbortController();
    const parts = textOf(
      source,
      true,
      signal === undefined ? ended.signal : AbortSignal.any([signal, ended.signal]),
    );
    const first = await parts.next();
    if (first.done === true) return;
    let { read } = first.value;
    const text = async function* (): AsyncGenerator<string> {
      yield first.value.text;
      for await (const part of parts) {
        read = part.read;
        yield part.text;
      }
    };
    const parser = parse(optionsOf(first.value.text, origin));
    const fed = pipeline(Readable.from(text()), parser);
    // Its failure is the parser's too, which is awaited below.
    fed.catch(() => {});
    const lines = new LineCounter();
    let rows: RawRow[] = [];
    try {
      for await (const { record, info } of parser as AsyncIterable<{ record: Cells; info: Info }>) {
        const number = lines.startOf(record, info.lines);
        rows.push({ value: fieldsOf(record, origin, number), number });
        if (rows.length < BATCH) continue;
        yield { rows, read };
        rows = [];
      }
      if (rows.length > 0) yield { rows, read };
    } catch (cause) {
      throw failureOf(cause, origin);
    } finally {
      parser.destroy();
      ended.abort();
      await parts.return(undefined).catch(() => {});
    }
  },
};

/** Counts the lines of a file, given where the parser's count is at each record's end. */
class LineCounter {
  /** The parser counts a CRLF within quotes twice. */
  #twice = 0;

  /** The line that a record begins in. */
  startOf(record: Cells, end: number): number {
    let breaks = 0;
    for (const value of Object.values(record)) {
      if (!value.includes("\n")) continue;
      breaks += value.split("\n").length - 1;
      this.#twice += value.split("\r\n").length - 1;
    }
    return end - this.#twice - breaks;
  }
}

function optionsOf(begin: string, origin: Origin): Options {
  return {
    delimiter: delimiterOf(begin),
    record_delimiter: ["\r\n", "\n"],
    columns: (header: string[]) => checkHeader(header, origin),
    info: true,
    skip_empty_lines: true,
    max_record_size: LONGEST_ROW,
  };
}

/** Finds the separator with which every name in the header is a field; a comma if there is none. */
function delimiterOf(text: string): string {
  const [header = ""] = text.split(/\r?\n/, 1);
  const isHeader = (delimiter: string): boolean =>
    header.split(delimiter).every((name) =>
      FIELDS.includes(
        name
          .trim()
          .replace(/^"(.*)"$/, "$1")
          .trim(),
      ),
    );
  return DELIMITERS.find(isHeader) ?? ",";
}

/** A record's fields: JSON where they are lists, and whole numbers as labels, which CSV has no types for. */
function fieldsOf(record: Cells, origin: Origin, number: number): Record<string, unknown> {
  const fields: Record<string, unknown> = { ...record };
  for (const [name, text] of Object.entries(record)) {
    if (name === "label" && /^(?:0|-?[1-9]\d{0,14})$/.test(text)) fields[name] = Number(text);
    if (!LIST_FIELDS.has(name)) continue;
    // A row without tools.
    if (text === "" && name === "tools") delete fields[name];
    else fields[name] = parsedCell(text, name, origin, number);
  }
  return fields;
}

function parsedCell(text: string, name: string, origin: Origin, number: number): unknown {
  try {
    return JSON.parse(text);
  } catch {
    const is = text === "" ? "is empty" : "is not JSON";
    throw rowError(origin, number, `"${name}" ${is}; a CSV file holds a list as JSON text (json.dumps)`);
  }
}

const PROBLEMS: Readonly<Record<string, string>> = {
  CSV_QUOTE_NOT_CLOSED: "a quoted field has no closing quote",
  CSV_MAX_RECORD_SIZE: `the row is longer than ${LONGEST_ROW >> 20} MiB, or a quote is not closed`,
  INVALID_OPENING_QUOTE:
    "a quote within a field that does not begin with one; quote the field and double its quotes",
  CSV_INVALID_CLOSING_QUOTE: "text behind a field's closing quote; double the quotes within a field",
};

function failureOf(cause: unknown, origin: Origin): unknown {
  const { code, lines, record, columns } = cause as CsvError & {
    lines?: number;
    record?: unknown[];
    columns?: unknown[];
  };
  if (typeof code !== "string" || cause instanceof LowrankError || lines === undefined) return cause;
  if (code === "CSV_RECORD_INCONSISTENT_COLUMNS") {
    const what = `the row has ${record?.length} fields, and the header ${columns?.length}`;
    return rowError(origin, lines, `${what}; quote fields with commas or line breaks`);
  }
  return rowError(origin, lines, PROBLEMS[code] ?? (cause as Error).message);
}
