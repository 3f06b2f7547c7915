/** Rows of data with checked fields. */
import { parseConversation, type RowConversation } from "../chat/messages.js";
import { hasPromptMessages, parsePromptMessages } from "../chat/prompted.js";
import { checkOneKind } from "./copies.js";
import { type FieldKind, listUnused } from "./source/field-names.js";
import type { RawRow } from "./formats/records.js";
import { type Origin, createRowError, describeRowShortly } from "./source/origin.js";

/** What every row has. */
interface Read {
  /** The row's number in the source, as in messages. */
  line: number;
  /** Unknown fields, which are not used; undefined if there are none. */
  unused?: readonly string[] | undefined;
}

/** A row for a language model. */
export type TextRow = ({ kind: "text"; text: string } & Read) | CompletionRow | ChatRow;

/** A prompt and its completion. */
export interface CompletionRow extends Copied, Read {
  kind: "completion";
  prompt: string;
  completion: string;
}

/** A row that may contain its content twice. */
interface Copied {
  /** A field that was dropped because it repeats the others as rendered text. */
  copy?: string | undefined;
}

/** A conversation with the row's format. */
export interface ChatRow extends RowConversation, Copied, Read {
  kind: "chat";
}

/** A row for a classifier: a text, and the name or index of its class. */
export interface LabelRow extends Read {
  kind: "label";
  text: string;
  label: string | number;
}

/** A row for a speech model: the path of a WAV file, and its transcript. */
export interface AudioRow extends Read {
  kind: "audio";
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

/** Converts parsed fields to a row, which names its unknown fields. `skipped` are fields that were not read. */
function parseRow({ value, number, skipped }: RawRow, refuse: Refuse): Row {
  const row = parseFields(value, number, refuse);
  const unused = [...(row.unused ?? []), ...(skipped ?? [])];
  if (unused.length > 0) row.unused = unused;
  return row;
}

function parseFields(value: unknown, line: number, refuse: Refuse): Row {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    return refuse(`the row is ${describeKind(value)}; ${EXPECTED}`);
  if ("audio" in value) return parseAudioRow(value as Record<string, unknown>, line, refuse);
  const { fields, copy } = checkOneKind(value as Record<string, unknown>, (first, other) =>
    refuse(
      `the row has both "${first}" and "${other}"; remove one; ${EXPECTED}. ` +
        "A text or prompt is ignored only if it repeats the other fields",
    ),
  );
  const added = (kind: FieldKind): { copy?: string; unused?: string[] } => {
    const unused = listUnused(fields, kind, refuse);
    return { ...(copy !== undefined && { copy }), ...(unused && { unused }) };
  };
  const text = (name: string): string => readStringField(fields, name, refuse);

  if (!["text", "completion", "messages", "output"].some((name) => name in fields))
    checkPreference(fields, refuse);
  if ("prompt" in fields || "completion" in fields) {
    if (hasPromptMessages(fields))
      return { kind: "chat", line, ...parsePromptMessages(fields, refuse), ...added("promptMessages") };
    return {
      kind: "completion",
      line,
      prompt: text("prompt"),
      completion: text("completion"),
      ...added("prompt"),
    };
  }
  if (!("text" in fields)) {
    const chat = parseConversation(fields, refuse);
    const kind = (["messages", "conversations", "instruction"] as const).find((name) => name in fields);
    if (chat !== undefined && kind !== undefined) return { kind: "chat", line, ...chat, ...added(kind) };
  }
  const inside = Object.keys(fields).find((name) => isRows(fields[name]));
  if (!("text" in fields) && inside !== undefined)
    return refuse(
      `the row's ${JSON.stringify(inside)} is an array of objects; if those are the rows, give the array alone`,
    );
  const content = text("text");
  if ("label" in fields)
    return {
      kind: "label",
      line,
      text: content,
      label: parseLabel(fields["label"], refuse),
      ...added("label"),
    };
  return { kind: "text", line, text: content, ...added("text") };
}

/** Throws for a preference pair, of which only one answer could be trained. */
function checkPreference(fields: Record<string, unknown>, refuse: Refuse): void {
  if (!("chosen" in fields && "rejected" in fields)) return;
  refuse(
    'the row has "chosen" and "rejected": preference pairs (DPO) are not supported; ' +
      `to train on the good answers, ${adviseChosen(fields)}, or train with TRL's DPOTrainer`,
  );
}

/** Returns how to change a preference pair into a row of the good answer. */
function adviseChosen(fields: Record<string, unknown>): string {
  const renamed = (name: string, removed = ""): string =>
    `rename "chosen" to "${name}" and remove ${removed}"rejected"`;
  if ("conversations" in fields) return 'append "chosen" to "conversations" and remove both fields';
  if ("instruction" in fields) return renamed("output");
  const { chosen } = fields;
  // In a CSV file a list is JSON text.
  const isChat = Array.isArray(chosen) || (typeof chosen === "string" && /^\s*\[\s*\{/.test(chosen));
  if (!("prompt" in fields)) return renamed(isChat ? "messages" : "text");
  // UltraFeedback's answers contain the conversation from its beginning.
  const isWhole = isChat && typeof fields["prompt"] === "string" && !/^\s*\[\s*\{/.test(fields["prompt"]);
  return isWhole ? renamed("messages", '"prompt" and ') : renamed("completion");
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
  const text = readStringField(fields, "text", refuse);
  const unused = listUnused(fields, "audio", refuse);
  return { kind: "audio", line, audio, text, ...(unused && { unused }) };
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
    return raw.map((row) =>
      this.#checkKind(
        parseRow(row, (problem) => {
          throw createRowError(this.origin, row.number, problem);
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
