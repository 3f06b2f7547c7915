/** Data as passed by callers: file names, or rows in memory. */
import { Readable } from "node:stream";

import { formatValue } from "../arguments/check.js";
import type { Message } from "../chat/messages.js";
import { LowrankError, throwIfAborted } from "../errors.js";
import { createRowError } from "./source/origin.js";
import { type RandomAccess, type ByteSource, Stream } from "./source/source.js";
import type { SpokenText } from "./speech.js";

/** A row of training data, with the fields of a data file's row. A row of speech has its samples. */
export type Row =
  | {
      /** The text; all of it is trained on. */
      text: string;
    }
  | {
      /** The text to classify. */
      text: string;
      /** The name or index of its class. */
      label: string | number;
    }
  | {
      /** The beginning of the text, by default not trained on. */
      prompt: string;
      /** The rest of the text. */
      completion: string;
    }
  | {
      /** The messages before the completion, in TRL's format. */
      prompt: readonly Message[];
      /** The messages whose assistant turns are trained on. */
      completion: readonly Message[];
      /** The tools that the assistant may call, as JSON schemas or as their JSON text. */
      tools?: readonly object[] | string | null | undefined;
    }
  | {
      /** The turns of a conversation. */
      messages: readonly Message[];
      /** The tools that the assistant may call, as JSON schemas or as their JSON text. */
      tools?: readonly object[] | string | null | undefined;
    }
  | {
      /** The turns of a conversation, in ShareGPT's format. */
      conversations: readonly object[];
      /** The system message. */
      system?: string | null | undefined;
      /** The tools that the assistant may call, as JSON schemas or as their JSON text. */
      tools?: readonly object[] | string | null | undefined;
    }
  | {
      /** The user's request, in Alpaca's format. */
      instruction: string;
      /** Additional input to the request. */
      input?: string | null | undefined;
      /** The assistant's answer. */
      output: string;
      /** The system message. */
      system?: string | null | undefined;
    }
  | SpokenText;

/** Rows in memory, or rows from an iterable, which are read once. */
export type RowsInMemory = Iterable<Row> | AsyncIterable<Row>;

/** Data of a run: one or several file names, or rows. */
export type TrainingData = string | readonly string[] | RowsInMemory;

/** Whether `data` is rows rather than file names. */
export function isRows(data: unknown): data is RowsInMemory {
  if (typeof data !== "object" || data === null || isFiles(data)) return false;
  return Symbol.iterator in data || Symbol.asyncIterator in data;
}

/** Whether `data` is file names. */
export function isFiles(data: unknown): data is string | readonly string[] {
  if (typeof data === "string") return true;
  return Array.isArray(data) && data.length > 0 && data.every((item) => typeof item === "string");
}

/** Returns the file names as an array. */
export function listFiles(data: string | readonly string[]): readonly string[] {
  return typeof data === "string" ? [data] : data;
}

/** Characters of rows per emitted block. */
const BLOCK = 1 << 16;

/** Serialises rows as JSON lines. Throws `ERR_DATA_ROW` for a row that JSON cannot represent. */
async function* serializeRows(name: string, rows: RowsInMemory): AsyncGenerator<Uint8Array> {
  const origin = { file: name, numbering: "index" } as const;
  let [block, index] = ["", 0];
  for await (const row of rows as AsyncIterable<unknown>) {
    if (typeof row !== "object" || row === null || Array.isArray(row))
      throw createRowError(
        origin,
        index,
        `the row must be an object such as { text: "…" }, got ${formatValue(row)}`,
      );
    let line: string;
    try {
      line = JSON.stringify(row);
    } catch (cause) {
      throw createRowError(
        origin,
        index,
        `the row cannot be written as JSON: ${(cause as Error).message.split("\n")[0]}`,
      );
    }
    block += `${line}\n`;
    index++;
    if (block.length < BLOCK) continue;
    yield Buffer.from(block);
    block = "";
  }
  if (index === 0) throw new LowrankError("ERR_DATA_ROW", `${name}: there are no rows`);
  if (block !== "") yield Buffer.from(block);
}

/**
 * Returns rows as a source of JSON lines, so that they are read in the same way as a file. An array is read as often as
 * needed; rows of an iterable are written to a temporary file as they arrive.
 */
export function createRowsSource(name: string, rows: RowsInMemory): ByteSource {
  if (Array.isArray(rows)) return new ArraySource(name, rows as readonly Row[]);
  // Errors of the caller's iterable are rethrown unchanged.
  const failure = (_: string, cause: unknown): unknown => cause;
  return new Stream(name, () => Readable.from(serializeRows(name, rows)), failure);
}

class ArraySource implements ByteSource {
  /** Known after the first complete read. */
  size: number | undefined;

  constructor(
    readonly name: string,
    private readonly rows: readonly Row[],
  ) {}

  async *read(signal?: AbortSignal): AsyncIterable<Uint8Array> {
    let size = 0;
    for await (const block of serializeRows(this.name, this.rows)) {
      throwIfAborted(signal);
      size += block.length;
      yield block;
    }
    this.size = size;
  }

  openRandomAccess(): Promise<RandomAccess> {
    throw new LowrankError("ERR_INTERNAL", "rows in memory are read from their beginning");
  }

  close(): void {}
}

/** Reads the first row to detect speech; the returned rows include it. */
export async function peekRows(rows: RowsInMemory): Promise<{ rows: RowsInMemory; speech: boolean }> {
  const isSpeech = (row: unknown): boolean => typeof row === "object" && row !== null && "audio" in row;
  if (Array.isArray(rows)) return { rows, speech: isSpeech(rows[0]) };
  const iterator =
    Symbol.asyncIterator in rows
      ? (rows as AsyncIterable<Row>)[Symbol.asyncIterator]()
      : (rows as Iterable<Row>)[Symbol.iterator]();
  const first = await iterator.next();
  let hasBegun = false;
  const next = async (): Promise<IteratorResult<Row>> => {
    if (hasBegun) return iterator.next();
    hasBegun = true;
    return first;
  };
  const end = async (): Promise<IteratorResult<Row>> => {
    await iterator.return?.();
    return { value: undefined, done: true };
  };
  return {
    rows: { [Symbol.asyncIterator]: () => ({ next, return: end }) },
    speech: first.done !== true && isSpeech(first.value),
  };
}
