/** Reads data once to check it; its parts can then be read again. */
import { LowrankError } from "../errors.js";
import type { DataFormat } from "./format.js";
import { detectFormat, READERS } from "./readers.js";
import { createJsonLinesReader } from "./formats/json-lines.js";
import type { RecordReader } from "./formats/records.js";
import {
  listFiles,
  type TrainingData,
  isFiles,
  peekRows,
  createRowsSource,
  type RowsInMemory,
} from "./given.js";
import { HashedSource, type IdentifiedSource } from "./source/hashed-source.js";
import { streamText } from "./source/lines.js";
import { type Origin, describeRow } from "./source/origin.js";
import { type AudioRow, type LabelRow, type Row, RowChecker, type TextRow } from "./rows.js";
import { readSpokenTexts, type SpeechRow, type SpokenTexts, WaveReader } from "./speech.js";
import { openSource, type ByteSource } from "./source/source.js";

/** A part of some data, and the bytes of its source read up to its end. */
export interface DataChunk<T> {
  part: T;
  read: number;
}

/** One source of data: a file, a stream or rows in memory. */
export interface Content<T> extends Origin {
  /** Its size in bytes; undefined where it is unknown. */
  size: number | undefined;
  /** The hash of all its bytes in the first read, or of all pieces of its file. */
  sha256: string;
  /** Reads its content in parts; each call starts at the beginning. */
  parts(signal?: AbortSignal): AsyncIterable<DataChunk<T>>;
  /** Deletes the temporary file of a stream; the content cannot be read afterwards. */
  close(): void;
  /** For a source that several processes share: the rows with the most characters in all of it. */
  longest?: T | undefined;
}

interface Contents<T> {
  /** The name in messages: the source's name, or the first source's and the number of others. */
  file: string;
  /** The sources, in the given order. */
  sources: readonly Content<T>[];
}

/** A running text, with LF line ends. */
export interface RunningText extends Contents<string> {
  kind: "text";
}

/** Rows of text, or of prompt and completion. */
export interface RowData extends Contents<TextRow[]> {
  kind: "rows";
  count: number;
  /** The location of the first row. */
  first: string;
}

/** The row count and first location of a label. */
export interface LabelUse {
  /** The number of rows with the label. */
  rows: number;
  /** The location of the first of them. */
  first: string;
}

/** Rows for a classifier. */
export interface LabelData extends Contents<LabelRow[]> {
  kind: "labels";
  count: number;
  first: string;
  labels: ReadonlyMap<string | number, LabelUse>;
}

/** Rows of speech. */
export interface SpeechData extends Contents<SpeechRow[]> {
  kind: "speech";
  count: number;
  first: string;
}

/** Data for a language model. */
export type TextData = RunningText | RowData;

export type Data = TextData | LabelData | SpeechData;

/** The part of a source that this process reads. */
export interface PartialData {
  data: RowData | LabelData | SpeechData;
  /** The first row, and its number; undefined for a part without rows. */
  first: Pick<Row, "kind" | "line"> | undefined;
}

export interface ReadOptions {
  /** The format of all files; by default from each file's extension. */
  format?: DataFormat | undefined;
  /** The option name of rows in memory, used in errors. */
  name?: string | undefined;
  signal?: AbortSignal | undefined;
  /** Receives the source, the bytes read so far, and its size if known. */
  onProgress?: ((progress: { file: string; read: number; size: number | undefined }) => void) | undefined;
}

/**
 * Reads and checks all data: files, named pipes, `-` (standard input) or rows in memory. Only a temporary file with a
 * stream's bytes is kept.
 *
 * Throws `ERR_FILE_NOT_FOUND`; `ERR_FILE_FORMAT` for an unsupported format or bytes that are not UTF-8; `ERR_DATA_ROW`
 * with file and line or row for an empty source, an invalid row, and sources of different kinds; `ERR_OPTION` for
 * standard input without a format; the signal's reason.
 */
export async function readData(given: TrainingData, options: ReadOptions = {}): Promise<Data> {
  if (!isFiles(given)) return readRowsInMemory(given as RowsInMemory, options);
  const read: Data[] = [];
  try {
    for (const file of listFiles(given)) read.push(await readFile(file, options));
    return joinSources(read);
  } catch (error) {
    read.forEach(closeData);
    throw error;
  }
}

/** Deletes the temporary files of data, which cannot be read afterwards. */
export function closeData({ sources }: Data): void {
  for (const source of sources) source.close();
}

/** Returns the hash of each source's bytes. */
export function listHashes({ sources }: Data): string[] {
  return sources.map(({ sha256 }) => sha256);
}

async function readFile(file: string, options: ReadOptions): Promise<Data> {
  return closeOnError(new HashedSource(await openSource(file)), (source) => {
    const format = detectFormat(file, options.format);
    return format === "txt" ? readText(source, options) : readRows(source, READERS[format], options);
  });
}

async function readRowsInMemory(given: RowsInMemory, options: ReadOptions): Promise<Data> {
  const { name = "data", signal } = options;
  const { rows, speech } = await peekRows(given);
  if (speech) return readSpokenTexts(name, rows as SpokenTexts, signal);
  return closeOnError(new HashedSource(createRowsSource(name, rows)), (source) =>
    readRows(source, createJsonLinesReader("index"), options),
  );
}

async function closeOnError(
  source: HashedSource,
  read: (source: HashedSource) => Promise<Data>,
): Promise<Data> {
  try {
    return await read(source);
  } catch (error) {
    source.close();
    throw error;
  }
}

async function readText(source: HashedSource, { signal, onProgress }: ReadOptions): Promise<RunningText> {
  let any = false;
  for await (const { part, read } of readTexts(source, signal)) {
    any ||= /\S/u.test(part);
    onProgress?.({ file: source.name, read, size: source.size });
  }
  if (!any) throw new LowrankError("ERR_DATA_ROW", `${source.name}: the file has no text`);
  const origin: Origin = { file: source.name, numbering: "line" };
  return { kind: "text", ...createContents(source, origin, (signal) => readTexts(source, signal)) };
}

async function* readTexts(source: ByteSource, signal?: AbortSignal): AsyncGenerator<DataChunk<string>> {
  let remainder = "";
  let read = 0;
  for await (const part of streamText(source, false, signal)) {
    const text = remainder + part.text;
    // CR and LF of one line end may be in different parts.
    remainder = text.endsWith("\r") ? "\r" : "";
    read = part.read;
    const lines = text.slice(0, text.length - remainder.length);
    yield { part: lines.includes("\r") ? lines.replaceAll("\r\n", "\n") : lines, read };
  }
  if (remainder !== "") yield { part: remainder, read };
}

async function readRows(
  source: HashedSource,
  reader: RecordReader,
  options: ReadOptions,
): Promise<RowData | LabelData | SpeechData> {
  const { data, first } = await readPart(source, reader, options);
  if (first === undefined) throw createNoRowsError(source.name);
  return data;
}

/** Returns the error for a source without rows. */
export function createNoRowsError(file: string): LowrankError {
  return new LowrankError("ERR_DATA_ROW", `${file}: the file has no rows`);
}

/** Reads and checks the rows of a source, or of a part of it, which may have none. */
export async function readPart(
  source: IdentifiedSource,
  reader: RecordReader,
  { signal, onProgress, onRows }: ReadOptions & { onRows?: ((rows: readonly Row[]) => void) | undefined },
): Promise<PartialData> {
  const origin: Origin = { file: source.name, numbering: reader.numbering };
  const labels = new Map<string | number, LabelUse>();
  const waves = new WaveReader(origin);
  let first: Row | undefined;
  let count = 0;
  const all = (signal?: AbortSignal) => readCheckedRows(source, reader, origin, signal);
  for await (const { part, read } of all(signal)) {
    first ??= part[0];
    count += part.length;
    onRows?.(part);
    for (const row of part) {
      if (row.kind === "label") countLabel(labels, row.label, 1, () => describeRow(origin, row.line));
      if (row.kind === "audio") await waves.check(row, signal);
    }
    onProgress?.({ file: source.name, read, size: source.size });
  }
  const found = { count, first: first === undefined ? "" : describeRow(origin, first.line) };
  if (first?.kind === "audio") {
    const named = all as Content<AudioRow[]>["parts"];
    const sha256 = waves.hashWith(source.sha256);
    const spoken = createContents(source, origin, (signal) => waves.streamRows(named(signal)), sha256);
    return { data: { kind: "speech", ...found, ...spoken }, first };
  }
  if (first?.kind === "label") {
    const parts = all as Content<LabelRow[]>["parts"];
    return { data: { kind: "labels", ...found, labels, ...createContents(source, origin, parts) }, first };
  }
  const parts = all as Content<TextRow[]>["parts"];
  return { data: { kind: "rows", ...found, ...createContents(source, origin, parts) }, first };
}

/** Yields the checked rows of a source, all of one kind. */
async function* readCheckedRows(
  source: ByteSource,
  reader: RecordReader,
  origin: Origin,
  signal?: AbortSignal,
): AsyncGenerator<DataChunk<Row[]>> {
  const checker = new RowChecker(origin);
  for await (const { rows, read } of reader.read(source, signal))
    yield { part: checker.checkRows(rows), read };
}

function createContents<T>(
  source: IdentifiedSource,
  origin: Origin,
  parts: Content<T>["parts"],
  sha256 = source.sha256,
): Contents<T> {
  const { size } = source;
  return { file: origin.file, sources: [{ ...origin, size, sha256, parts, close: () => source.close() }] };
}

/** Counts the rows of a label. `first` locates the first of them. */
export function countLabel(
  labels: Map<string | number, LabelUse>,
  label: string | number,
  rows: number,
  first: () => string,
): void {
  const use = labels.get(label);
  if (use === undefined) labels.set(label, { rows, first: first() });
  else use.rows += rows;
}

/** Names of the kinds of data, for messages. */
const KINDS = {
  text: "running text",
  rows: "rows for a language model",
  labels: "rows with labels",
  speech: "rows of speech",
} as const satisfies Record<Data["kind"], string>;

/** Joins the data of several sources. Throws `ERR_DATA_ROW`, naming two of different kinds. */
export function joinSources(all: readonly Data[]): Data {
  const [first, ...others] = all as [Data, ...Data[]];
  if (others.length === 0) return first;
  const other = others.find(({ kind }) => kind !== first.kind);
  if (other !== undefined) {
    const what = `${other.file}: contains ${KINDS[other.kind]}, but ${first.file} contains ${KINDS[first.kind]}`;
    throw new LowrankError("ERR_DATA_ROW", `${what}; all data of a run must be of one kind`);
  }
  const file = `${first.file} and ${others.length} more`;
  const sources = all.flatMap((data): readonly Content<unknown>[] => data.sources);
  const count = all.reduce((sum, data) => sum + (data.kind === "text" ? 0 : data.count), 0);
  const labels = new Map<string | number, LabelUse>();
  for (const data of all)
    if (data.kind === "labels")
      for (const [label, use] of data.labels) countLabel(labels, label, use.rows, () => use.first);
  return {
    ...first,
    file,
    sources,
    ...(first.kind !== "text" && { count }),
    ...(labels.size > 0 && { labels }),
  } as Data;
}

/** Returns the data if it is for a language model. Throws `ERR_DATA_ROW` for rows with labels or speech. */
export function checkTextData(data: Data): TextData {
  if (data.kind === "speech") {
    const what =
      'the row has "audio", but the model is a language model; speech trains models such as Whisper';
    throw new LowrankError("ERR_DATA_ROW", `${data.first}: ${what}`);
  }
  if (data.kind !== "labels") return data;
  const what =
    'the row has a "label", but the model is a language model; labels train an encoder, such as BERT';
  throw new LowrankError("ERR_DATA_ROW", `${data.first}: ${what}`);
}

/** Returns the location of the first row, or of the first line of a running text. */
export function locateFirst(data: Data): string {
  return data.kind === "text"
    ? describeRow({ file: data.sources[0]?.file ?? "", numbering: "line" }, 1)
    : data.first;
}
