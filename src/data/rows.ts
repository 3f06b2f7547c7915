/** Rows of data with checked fields. */
import { parseConversation, type RowConversation } from "../chat/messages.js";
import { checkOneKind } from "./copies.js";
import { checkNames } from "./source/field-names.js";
import type { RawRow } from "./formats/records.js";
import { type Origin, createRowError, describeRowShortly } from "./source/origin.js";

/** A row for a language model; `line` is its number in the source, as in messages. */
export type TextRow =
  | { kind: "text"; line: number; text: string }
  | ({ kind: "completion"; line: number; prompt: string; completion: string } & Copied)
  | ChatRow;

/** A row that may contain its content twice. */
interface Copied {
  /** A field that was dropped because it repeats the others as rendered text. */
  copy?: string | undefined;
}

/** A conversation with the row's format. */
export interface ChatRow extends RowConversation, Copied {
  kind: "chat";
  line: number;
}

/** A row for a classifier: a text, and the name or index of its class. */
export interface LabelRow {
  kind: "label";
  line: number;
  text: string;
  label: string | number;
}

/** A row for a speech model: the path of a WAV file, and its transcript. */
export interface AudioRow {
  kind: "audio";
  line: number;
  audio: string;
  text: string;
}

export type Row = TextRow | LabelRow | AudioRow;

const EXPECTED =
  'expected {"text": …}, {"text": …, "label": …}, {"prompt": …, "completion": …}, {"messages": […]} or {"audio": …, "text": …}';

/** Throws an error that names the row. */
type Refuse = (problem: string) => never;

function describeKind(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "an array" : `a ${typeof value}`;
}

/** Returns a field that must be a string. Throws `ERR_DATA_ROW`. */
export function readStringField(fields: Record<string, unknown>, name: string, refuse: Refuse): string {
  const value = fields[name];
  if (typeof value === "string") return checkWellFormed(value, name, refuse);
  if (value === undefined) return refuse(`the field "${name}" is missing; ${EXPECTED}`);
  return refuse(`"${name}" must be a string, got ${describeKind(value)}`);
}

/** Throws for a lone surrogate, which only an escape such as `\\ud83d` can produce and which is not a character. */
function checkWellFormed(value: string, name: string, refuse: Refuse): string {
  // Supported by all required Node versions, but missing in the type library.
  if ((value as unknown as { isWellFormed(): boolean }).isWellFormed()) return value;
  const index = value.search(/\p{Surrogate}/u);
  const half = `\\u${value.charCodeAt(index).toString(16)}`;
  return refuse(
    `"${name}" has half of a surrogate pair, ${half}, at character ${index + 1}; write both halves`,
  );
}

/** Converts parsed fields to a row; unknown fields are ignored. */
function parseRow(value: unknown, line: number, refuse: Refuse): Row {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    return refuse(`the row is ${describeKind(value)}; ${EXPECTED}`);
  if ("audio" in value) return parseAudioRow(value as Record<string, unknown>, line, refuse);
  const { fields, copy } = checkOneKind(value as Record<string, unknown>, (first, other) =>
    refuse(
      `the row has both "${first}" and "${other}"; remove one; ${EXPECTED}. ` +
        "A text or prompt is ignored only if it repeats the other fields",
    ),
  );
  const copied = copy === undefined ? undefined : { copy };
  const text = (name: string): string => readStringField(fields, name, refuse);

  const isPrompted = "prompt" in fields || "completion" in fields;
  checkNames(fields, refuse);
  if (isPrompted)
    return { kind: "completion", line, prompt: text("prompt"), completion: text("completion"), ...copied };
  if (!("text" in fields)) {
    const chat = parseConversation(fields, refuse);
    if (chat !== undefined) return { kind: "chat", line, ...chat, ...copied };
  }
  const inside = Object.keys(fields).find((name) => isRows(fields[name]));
  if (!("text" in fields) && inside !== undefined)
    return refuse(
      `the row's ${JSON.stringify(inside)} is an array of objects; if those are the rows, give the array alone`,
    );
  const content = text("text");
  if ("label" in fields)
    return { kind: "label", line, text: content, label: parseLabel(fields["label"], refuse) };
  return { kind: "text", line, text: content };
}

/** Whether a value may be a file's rows, wrapped in an object. */
function isRows(value: unknown): boolean {
  return Array.isArray(value) && value.length > 0 && value.every((item) => describeKind(item) === "a object");
}

function parseAudioRow(fields: Record<string, unknown>, line: number, refuse: Refuse): AudioRow {
  const other = ["label", "prompt", "completion", "messages"].find((name) => name in fields);
  if (other !== undefined) refuse(`the row has both "audio" and "${other}"; ${EXPECTED}`);
  const audio = readStringField(fields, "audio", refuse);
  if (audio === "") refuse('"audio" is empty; it is the path of a WAV file');
  return { kind: "audio", line, audio, text: readStringField(fields, "text", refuse) };
}

function parseLabel(value: unknown, refuse: Refuse): string | number {
  if (value === "") return refuse('"label" is empty');
  if (typeof value === "string") return checkWellFormed(value, "label", refuse);
  if (Number.isSafeInteger(value)) return value as number;
  const is = typeof value === "number" ? String(value) : describeKind(value);
  return refuse(`"label" must be a string or a whole number, got ${is}`);
}

/** Checks the rows of a source. Either all rows have a label, or none; the same for audio. */
export class RowChecker {
  #first: Row | undefined;

  constructor(private readonly origin: Origin) {}

  /** Checks parsed rows. Throws `ERR_DATA_ROW` for a row with a missing field or a field of another type. */
  checkRows(raw: readonly RawRow[]): Row[] {
    return raw.map(({ value, number }) =>
      this.#checkKind(
        parseRow(value, number, (problem) => {
          throw createRowError(this.origin, number, problem);
        }),
      ),
    );
  }

  #checkKind(row: Row): Row {
    checkKinds(this.origin, (this.#first ??= row), row);
    return row;
  }
}

/** Throws `ERR_DATA_ROW` if one of two rows of a source has a label, or audio, and the other has none. */
export function checkKinds(
  origin: Origin,
  first: Pick<Row, "kind" | "line">,
  row: Pick<Row, "kind" | "line">,
): void {
  for (const kind of ["label", "audio"] as const) {
    if ((first.kind === kind) === (row.kind === kind)) continue;
    const other = describeRowShortly(origin, first.line);
    const problem =
      first.kind === kind
        ? `the row has no "${kind}", and ${other} has one`
        : `the row has a "${kind}", and ${other} has none`;
    throw createRowError(origin, row.line, `${problem}; give every row one, or none`);
  }
}
