import { type ChatFormat, type Conversation, conversationOf } from "../chat/messages.js";
import { LowrankError } from "../errors.js";

/** A row that a language model is trained on; `line` counts from 1. */
export type TextRow =
  | { kind: "text"; line: number; text: string }
  | { kind: "completion"; line: number; prompt: string; completion: string }
  | ChatRow;

/** A conversation, and how the row spells it. */
export interface ChatRow extends Conversation {
  kind: "chat";
  line: number;
  format: ChatFormat;
}

/** A row that a classifier is trained on: a text and the name or the number of its class. */
export interface LabelRow {
  kind: "label";
  line: number;
  text: string;
  label: string | number;
}

/** A row that a model of speech is trained on: the path of a WAV file, and what is said in it. */
export interface AudioRow {
  kind: "audio";
  line: number;
  audio: string;
  text: string;
}

export type Row = TextRow | LabelRow | AudioRow;

const EXPECTED =
  'expected {"text": …}, {"text": …, "label": …}, {"prompt": …, "completion": …}, {"messages": […]} or {"audio": …, "text": …}';

/** An error of a row, by file and line. */
export function rowError(file: string, line: number, what: string): LowrankError {
  return new LowrankError("ERR_DATA_ROW", `${file}:${line}: ${what}`);
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "an array" : `a ${typeof value}`;
}

/** A field that is a text. Throws `ERR_DATA_ROW`. */
export function stringField(
  fields: Record<string, unknown>,
  name: string,
  file: string,
  line: number,
): string {
  const value = fields[name];
  if (typeof value === "string") return wellFormed(value, name, file, line);
  if (value === undefined) throw rowError(file, line, `the field "${name}" is missing; ${EXPECTED}`);
  throw rowError(file, line, `"${name}" must be a string and is ${kindOf(value)}`);
}

/** Throws for half of a surrogate pair, as only an escape such as `\\ud83d` can write it: it is no character. */
function wellFormed(value: string, name: string, file: string, line: number): string {
  // In every Node that this runs on, and not in the library's types yet.
  if ((value as unknown as { isWellFormed(): boolean }).isWellFormed()) return value;
  const at = value.search(/\p{Surrogate}/u);
  const half = `\\u${value.charCodeAt(at).toString(16)}`;
  const what = `"${name}" has half of a surrogate pair, ${half}, at character ${at + 1}; write both halves`;
  throw rowError(file, line, what);
}

/** One parsed line as a row; fields that mean nothing here are ignored. */
function rowOf(value: unknown, file: string, line: number): Row {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw rowError(file, line, `the row is ${kindOf(value)}; ${EXPECTED}`);
  }
  const fields = value as Record<string, unknown>;
  if ("audio" in fields) {
    const other = ["label", "prompt", "completion", "messages"].find((name) => name in fields);
    if (other !== undefined) throw rowError(file, line, `the row has "audio" beside "${other}"; ${EXPECTED}`);
    const audio = stringField(fields, "audio", file, line);
    if (audio === "") throw rowError(file, line, '"audio" is empty; it is the path of a WAV file');
    return { kind: "audio", line, audio, text: stringField(fields, "text", file, line) };
  }
  const asked = "prompt" in fields || "completion" in fields;
  if ("messages" in fields && (asked || "text" in fields)) {
    throw rowError(file, line, `the row has "messages" beside "text", "prompt" or "completion"; ${EXPECTED}`);
  }
  if (asked && "text" in fields) {
    throw rowError(file, line, `the row has "text" beside "prompt" or "completion"; ${EXPECTED}`);
  }
  if (asked) {
    const prompt = stringField(fields, "prompt", file, line);
    return { kind: "completion", line, prompt, completion: stringField(fields, "completion", file, line) };
  }
  if (!("text" in fields)) {
    const chat = conversationOf(fields, (what) => {
      throw rowError(file, line, what);
    });
    if (chat !== undefined) return { kind: "chat", line, ...chat };
  }
  const text = stringField(fields, "text", file, line);
  if ("label" in fields) return { kind: "label", line, text, label: labelOf(fields["label"], file, line) };
  return { kind: "text", line, text };
}

function labelOf(value: unknown, file: string, line: number): string | number {
  if (value === "") throw rowError(file, line, '"label" is empty');
  if (typeof value === "string") return wellFormed(value, "label", file, line);
  if (Number.isSafeInteger(value)) return value as number;
  const is = typeof value === "number" ? String(value) : kindOf(value);
  throw rowError(file, line, `"label" must be a string or a whole number and is ${is}`);
}

/**
 * Reads rows out of a `.jsonl` file: one JSON object a line, LF or CRLF, blank lines skipped. All rows of a file have
 * a label, or none has; all have audio, or none has.
 */
export class RowReader {
  #first: Row | undefined;

  constructor(private readonly file: string) {}

  /**
   * The rows of whole lines, of which the first is line `line` of the file.
   *
   * Errors: `ERR_DATA_ROW` with file and line for what is no JSON or lacks a field.
   */
  rows(text: string, line: number): Row[] {
    const rows: Row[] = [];
    for (const one of text.split("\n")) {
      const trimmed = one.trim();
      if (trimmed !== "")
        rows.push(this.#checked(rowOf(parseLine(trimmed, this.file, line), this.file, line)));
      line++;
    }
    return rows;
  }

  #checked(row: Row): Row {
    const first = (this.#first ??= row);
    for (const kind of ["label", "audio"] as const) {
      if ((first.kind === kind) === (row.kind === kind)) continue;
      const what =
        first.kind === kind
          ? `the row has no "${kind}", and line ${first.line} has one`
          : `the row has a "${kind}", and line ${first.line} has none`;
      throw rowError(this.file, row.line, `${what}; give every row one, or none`);
    }
    return row;
  }
}

function parseLine(text: string, file: string, line: number): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    const start = text.length > 40 ? `${text.slice(0, 40)}…` : text;
    throw new LowrankError("ERR_DATA_ROW", `${file}:${line}: not JSON: ${start}`, { cause });
  }
}
