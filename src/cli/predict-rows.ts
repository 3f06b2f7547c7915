/** Reads the rows that `predict` classifies, and formats its output lines. */
import type { DataFormat } from "../data/format.js";
import { READERS } from "../data/readers.js";
import { streamText } from "../data/source/lines.js";
import { type Origin, createRowError } from "../data/source/origin.js";
import type { ByteSource } from "../data/source/source.js";
import type { Classified } from "../models/classify.js";

/** A text and its row. */
export interface TextRow {
  text: string;
  line: number;
  /** The row's JSON text as in its file; undefined for a line of plain text. */
  json?: string | undefined;
}

/** The number of characters that ends a window even if it has few rows. */
const MOST_CHARACTERS = 8 << 20;

/** The field that the row's own label is renamed to. */
const EXPECTED = "expected";

/**
 * Yields the rows of a file in windows of at least `least` rows, or fewer if they are long.
 *
 * Errors: `ERR_DATA_ROW` with file and line; the errors of `streamText`.
 */
export async function* streamWindows(
  source: ByteSource,
  format: DataFormat,
  { least, signal }: { least: number; signal: AbortSignal },
): AsyncGenerator<TextRow[]> {
  let rows: TextRow[] = [];
  let characters = 0;
  for await (const part of readWindows(source, format, signal)) {
    rows.push(...part);
    for (const { text, json } of part) characters += (json ?? text).length;
    if (rows.length === 0 || (rows.length < least && characters < MOST_CHARACTERS)) continue;
    yield rows;
    [rows, characters] = [[], 0];
  }
  if (rows.length > 0) yield rows;
}

/** Yields the rows of a file as they are read. */
async function* readWindows(
  source: ByteSource,
  format: DataFormat,
  signal: AbortSignal,
): AsyncGenerator<TextRow[]> {
  const origin = describeOrigin(source, format);
  // Lines of text and JSON lines are kept verbatim.
  if (format === "txt" || format === "jsonl" || format === "ndjson") {
    yield* streamLines(source, origin, format === "txt", signal);
    return;
  }
  for await (const { rows } of READERS[format].read(source, signal, "all"))
    yield rows.map(({ value, number }) => ({
      text: readTextField(value, origin, number),
      line: number,
      json: JSON.stringify(value),
    }));
}

async function* streamLines(
  source: ByteSource,
  origin: Origin,
  isText: boolean,
  signal: AbortSignal,
): AsyncGenerator<TextRow[]> {
  for await (const part of streamText(source, true, signal)) {
    const rows: TextRow[] = [];
    const lines = part.text.split("\n");
    // The text after the last newline is not a line if it is empty.
    if (lines.at(-1) === "") lines.pop();
    for (const [i, line] of lines.entries()) {
      const row = isText ? createTextRow(line, part.line + i) : parseJsonRow(line, origin, part.line + i);
      if (row !== undefined) rows.push(row);
    }
    yield rows;
  }
}

/** Returns the source's name in messages and the unit in which they count its rows. */
export function describeOrigin({ name }: ByteSource, format: DataFormat): Origin {
  return { file: name, numbering: format === "txt" ? "line" : READERS[format].numbering };
}

function createTextRow(line: string, number: number): TextRow {
  return { text: line.endsWith("\r") ? line.slice(0, -1) : line, line: number };
}

/** Parses a row; undefined for a blank line. */
function parseJsonRow(line: string, origin: Origin, number: number): TextRow | undefined {
  const json = line.trim();
  if (json === "") return undefined;
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    throw createRowError(origin, number, `not JSON: ${json.length > 40 ? `${json.slice(0, 40)}…` : json}`);
  }
  return { text: readTextField(value, origin, number), line: number, json };
}

/** Returns the text of a row. Throws `ERR_DATA_ROW` for a row without text or with a field that predict writes. */
function readTextField(value: unknown, origin: Origin, number: number): string {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw createRowError(origin, number, 'the row must be an object with a "text"');
  const fields = value as Record<string, unknown>;
  const { text } = fields;
  if (typeof text !== "string")
    throw createRowError(
      origin,
      number,
      text === undefined ? 'the field "text" is missing' : '"text" must be a string',
    );
  const reserved = ["scores", "labels", ...("label" in fields ? [EXPECTED] : [])].find(
    (name) => name in fields,
  );
  if (reserved !== undefined)
    throw createRowError(
      origin,
      number,
      `the row has a field "${reserved}", which predict writes; rename or remove it`,
    );
  return text;
}

/**
 * Returns an output line: the row with `label` and `scores`. Other fields are copied verbatim, so that long numbers keep
 * all digits; the row's own `label` is renamed to `expected`.
 */
export function formatOutput({ text, json = JSON.stringify({ text }) }: TextRow, found: Classified): string {
  const { label, labels, scores } = found;
  const rounded = Object.fromEntries(
    Object.entries(scores).map(([name, score]) => [name, Number(score.toPrecision(7))]),
  );
  const added = JSON.stringify({ label, ...(labels && { labels }), scores: rounded });
  const fields = renameKey(json, "label", EXPECTED).trimEnd().slice(0, -1).trimEnd();
  const line = `${fields}${fields === "{" ? "" : ","}${added.slice(1)}`;
  // In JSON, control characters occur only in strings, where an escape is equivalent.
  return `${line.replaceAll(/[\u007f-\u009f]/g, (character) => `\\u00${character.charCodeAt(0).toString(16)}`)}\n`;
}

/** Renames a top-level key in a JSON object's text. */
function renameKey(json: string, from: string, to: string): string {
  let depth = 0;
  return json.replaceAll(/"(?:[^"\\]|\\.)*"(\s*:)?|[[\]{}]/g, (token, colon: string | undefined) => {
    if (token === "{" || token === "[") depth++;
    else if (token === "}" || token === "]") depth--;
    else if (depth === 1 && colon !== undefined) {
      const key = token.slice(0, token.length - colon.length);
      if (JSON.parse(key) === from) return `${JSON.stringify(to)}${colon}`;
    }
    return token;
  });
}
