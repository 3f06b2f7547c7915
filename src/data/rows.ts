import { LowrankError } from "../errors.js";
import { bomLength, decodeUtf8 } from "./utf8.js";

/** A row that a language model is trained on; `line` counts from 1. */
export type TextRow =
  | { kind: "text"; line: number; text: string }
  | { kind: "completion"; line: number; prompt: string; completion: string };

/** A row that a classifier is trained on: a text and the name or the number of its class. */
export interface LabelRow {
  kind: "label";
  line: number;
  text: string;
  label: string | number;
}

export type Row = TextRow | LabelRow;

const EXPECTED = 'expected {"text": …}, {"text": …, "label": …} or {"prompt": …, "completion": …}';

/** An error of a row, by file and line. */
export function rowError(file: string, line: number, what: string): LowrankError {
  return new LowrankError("ERR_DATA_ROW", `${file}:${line}: ${what}`);
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "an array" : `a ${typeof value}`;
}

function stringField(fields: Record<string, unknown>, name: string, file: string, line: number): string {
  const value = fields[name];
  if (typeof value === "string") return value;
  if (value === undefined) throw rowError(file, line, `the field "${name}" is missing; ${EXPECTED}`);
  throw rowError(file, line, `"${name}" must be a string and is ${kindOf(value)}`);
}

/** One parsed line as a row; fields that mean nothing here are ignored. */
export function rowOf(value: unknown, file: string, line: number): Row {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw rowError(file, line, `the row is ${kindOf(value)}; ${EXPECTED}`);
  }
  const fields = value as Record<string, unknown>;
  if ("messages" in fields) throw rowError(file, line, `rows of "messages" are not supported; ${EXPECTED}`);
  const asked = "prompt" in fields || "completion" in fields;
  if (asked && "text" in fields) {
    throw rowError(file, line, `the row has "text" beside "prompt" or "completion"; ${EXPECTED}`);
  }
  if (asked) {
    const prompt = stringField(fields, "prompt", file, line);
    return { kind: "completion", line, prompt, completion: stringField(fields, "completion", file, line) };
  }
  const text = stringField(fields, "text", file, line);
  if ("label" in fields) return { kind: "label", line, text, label: labelOf(fields["label"], file, line) };
  return { kind: "text", line, text };
}

function labelOf(value: unknown, file: string, line: number): string | number {
  if (value === "") throw rowError(file, line, '"label" is empty');
  if (typeof value === "string" || Number.isSafeInteger(value)) return value as string | number;
  const is = typeof value === "number" ? String(value) : kindOf(value);
  throw rowError(file, line, `"label" must be a string or a whole number and is ${is}`);
}

/**
 * The rows of a `.jsonl` file: one JSON object a line, LF or CRLF, blank lines skipped, a byte order mark ignored.
 *
 * Errors: `ERR_DATA_ROW` with file and line for what is no JSON or lacks a field; `ERR_FILE_FORMAT` for bytes that
 * are not UTF-8.
 */
export function parseJsonl(bytes: Uint8Array, file: string): Row[] {
  const rows: Row[] = [];
  let start = bomLength(bytes);
  for (let line = 1; start < bytes.length; line++) {
    const newline = bytes.indexOf(0x0a, start);
    const end = newline < 0 ? bytes.length : newline;
    const text = decodeUtf8(bytes.subarray(start, end), file, start, line).trim();
    if (text !== "") rows.push(rowOf(parseLine(text, file, line), file, line));
    start = end + 1;
  }
  if (rows.length === 0) throw new LowrankError("ERR_DATA_ROW", `${file}: the file has no rows`);
  checkLabels(rows, file);
  return rows;
}

/** All rows of a file have a label, or none has. */
function checkLabels(rows: readonly Row[], file: string): void {
  const [first] = rows;
  const labelled = first?.kind === "label";
  const other = rows.find((row) => (row.kind === "label") !== labelled);
  if (other === undefined) return;
  const what = labelled
    ? `the row has no "label", and line ${first.line} has one`
    : `the row has a "label", and line ${first?.line} has none`;
  throw rowError(file, other.line, `${what}; give every row one, or none`);
}

function parseLine(text: string, file: string, line: number): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    const start = text.length > 40 ? `${text.slice(0, 40)}…` : text;
    throw new LowrankError("ERR_DATA_ROW", `${file}:${line}: not JSON: ${start}`, { cause });
  }
}
