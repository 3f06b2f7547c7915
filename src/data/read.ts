/** Data files: what they hold, found out by reading them once, and then read again by whoever wants it. */
import { extname } from "node:path";
import { LowrankError } from "../errors.js";
import type { DataFormat } from "./format.js";
import { HashedSource } from "./hashed-source.js";
import { textOf } from "./lines.js";
import { type AudioRow, type LabelRow, type Row, RowReader, type TextRow, rowError } from "./rows.js";
import { type SpeechRow, WaveReader } from "./speech.js";
import { openSource, type Source, STANDARD_INPUT } from "./source.js";

/** A part of some data, and the bytes of its file that were read up to its end. */
export interface Read<T> {
  part: T;
  read: number;
}

interface Content<T> {
  /** What errors call it: the file's name, or `standard input`. */
  file: string;
  /** Bytes of the file; undefined where it is not one. */
  size: number | undefined;
  /** The hash of all its bytes, as they were read first. */
  sha256: string;
  /** What it holds, in parts; each call reads it from its beginning. */
  parts(signal?: AbortSignal): AsyncIterable<Read<T>>;
  /** Frees what a stream was put by in; nothing reads it afterwards. */
  close(): void;
}

/** A running text, every line ending as LF. */
export interface RunningText extends Content<string> {
  kind: "text";
}

/** Rows of text, or of prompt and completion. */
export interface Rows extends Content<TextRow[]> {
  kind: "rows";
  count: number;
  /** The line of the first. */
  firstLine: number;
}

/** What a data file holds for a language model. */
export type TextData = RunningText | Rows;

/** What it holds for a classifier. */
export interface LabelData extends Content<LabelRow[]> {
  kind: "labels";
  count: number;
  /** Each label, and the first line that has it. */
  labels: ReadonlyMap<string | number, number>;
}

/** Rows of speech. */
export interface SpeechData extends Content<SpeechRow[]> {
  kind: "speech";
  count: number;
  /** The line of the first. */
  firstLine: number;
}

export type Data = TextData | LabelData | SpeechData;

export interface ReadOptions {
  /** By the file's name unless given. */
  format?: DataFormat | undefined;
  signal?: AbortSignal | undefined;
  /** Told of bytes read, and how many there are in all where that is known. */
  onProgress?: ((read: number, size: number | undefined) => void) | undefined;
}

/** Throws `ERR_FILE_FORMAT` where neither the name nor an option says what a file is. */
function formatOf(file: string, format: DataFormat | undefined): DataFormat {
  const kind = format ?? extname(file).toLowerCase().slice(1);
  if (kind === "txt" || kind === "jsonl") return kind;
  if (file === STANDARD_INPUT) {
    throw new LowrankError(
      "ERR_OPTION",
      "standard input has no name to go by: give the data's format, txt or jsonl",
    );
  }
  const what = "a data file's name ends in .txt or .jsonl; else give the data's format, txt or jsonl";
  throw new LowrankError("ERR_FILE_FORMAT", `${file}: ${what}`);
}

/**
 * Reads a data file, a named pipe or `-` (standard input) through, and checks all of it. Nothing of it is kept but
 * what a stream gave, in a file.
 *
 * Errors: `ERR_FILE_NOT_FOUND`; `ERR_FILE_FORMAT` for another kind of file or bytes that are not UTF-8;
 * `ERR_DATA_ROW` with file and line for a file that is empty or a row that is not as expected; `ERR_OPTION` for
 * standard input without a format; the signal's reason.
 */
export async function readData(file: string, options: ReadOptions = {}): Promise<Data> {
  const source = new HashedSource(await openSource(file));
  try {
    const format = formatOf(file, options.format);
    return await (format === "txt" ? readText(source, options) : readRows(source, options));
  } catch (error) {
    source.close();
    throw error;
  }
}

async function readText(source: HashedSource, { signal, onProgress }: ReadOptions): Promise<RunningText> {
  let any = false;
  for await (const { part, read } of texts(source, signal)) {
    any ||= /\S/u.test(part);
    onProgress?.(read, source.size);
  }
  if (!any) throw new LowrankError("ERR_DATA_ROW", `${source.name}: the file has no text`);
  return { kind: "text", ...content(source, (signal) => texts(source, signal)) };
}

async function* texts(source: Source, signal?: AbortSignal): AsyncGenerator<Read<string>> {
  let held = "";
  let read = 0;
  for await (const part of textOf(source, false, signal)) {
    const text = held + part.text;
    // The two characters of a line's end may come apart.
    held = text.endsWith("\r") ? "\r" : "";
    read = part.read;
    const whole = text.slice(0, text.length - held.length);
    yield { part: whole.includes("\r") ? whole.replaceAll("\r\n", "\n") : whole, read };
  }
  if (held !== "") yield { part: held, read };
}

async function readRows(
  source: HashedSource,
  { signal, onProgress }: ReadOptions,
): Promise<Rows | LabelData | SpeechData> {
  const labels = new Map<string | number, number>();
  const waves = new WaveReader(source.name);
  let first: Row | undefined;
  let count = 0;
  for await (const { part, read } of rows(source, signal)) {
    first ??= part[0];
    count += part.length;
    for (const row of part) {
      if (row.kind === "label" && !labels.has(row.label)) labels.set(row.label, row.line);
      if (row.kind === "audio") await waves.check(row, signal);
    }
    onProgress?.(read, source.size);
  }
  if (first === undefined) throw new LowrankError("ERR_DATA_ROW", `${source.name}: the file has no rows`);
  if (first.kind === "label") {
    const parts = (signal?: AbortSignal) => rows(source, signal) as AsyncIterable<Read<LabelRow[]>>;
    return { kind: "labels", count, labels, ...content(source, parts) };
  }
  if (first.kind === "audio") {
    const named = (signal?: AbortSignal) => rows(source, signal) as AsyncIterable<Read<AudioRow[]>>;
    const own = content(source, (signal) => waves.rows(named(signal)));
    return { kind: "speech", count, firstLine: first.line, ...own, sha256: waves.sha256(own.sha256) };
  }
  const parts = (signal?: AbortSignal) => rows(source, signal) as AsyncIterable<Read<TextRow[]>>;
  return { kind: "rows", count, firstLine: first.line, ...content(source, parts) };
}

/** Rows of all kinds; all of a file are of one. */
async function* rows(source: Source, signal?: AbortSignal): AsyncGenerator<Read<Row[]>> {
  const reader = new RowReader(source.name);
  for await (const { text, line, read } of textOf(source, true, signal)) {
    yield { part: reader.rows(text, line), read };
  }
}

function content<T>(source: HashedSource, parts: Content<T>["parts"]): Content<T> {
  const { name: file, size, sha256 } = source;
  return { file, size, sha256, parts, close: () => source.close() };
}

/** The data of a language model. Throws `ERR_DATA_ROW` for rows with labels, and for those of speech. */
export function textData(data: Data): TextData {
  if (data.kind === "speech") {
    const what = 'the row has "audio", and the model is a language model; speech trains such as Whisper';
    throw rowError(data.file, data.firstLine, what);
  }
  if (data.kind !== "labels") return data;
  const [line = 1] = data.labels.values();
  const what =
    'the row has a "label", and the model is a language model; labels train an encoder, such as BERT';
  throw rowError(data.file, line, what);
}
