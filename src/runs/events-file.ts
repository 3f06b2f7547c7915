/**
 * `events.jsonl`, next to a run's adapter, contains the run's events, one JSON object per line; each line is complete or
 * absent. The first line identifies the run. A resumed run rewrites the file with the events that remain valid, so that no
 * step is in it twice. Programs that show runs read this file only.
 */
import { existsSync } from "node:fs";
import { open, stat, type FileHandle } from "node:fs/promises";
import { basename } from "node:path";

import { LowrankError, readSystemCode } from "../errors.js";

/** The file's name in an output folder. */
export const EVENTS = "events.jsonl";
/** Files of abandoned branches, named by their lineage. */
export const LEFT_EVENTS = /^events-[0-9a-f]{12}\.jsonl$/;
const VERSION = 1;

/** The maximum length of a line in a run's file; longer lines are skipped. */
const LONGEST_LINE = 2 ** 20;
const PIECE = 2 ** 16;
const NEWLINE = Buffer.from("\n");
const STEP = Buffer.from('{"type":"step",');

/** The first line of the file. */
export interface EventsHeader {
  type: "events";
  version: number;
  /** The run and its branches; the last segment identifies the run. */
  line: readonly { lineage: string; until?: number | undefined }[];
  /** The creation time of this file, in milliseconds since 1970. */
  at: number;
}

/** A line after the first: an event of the run, or its failure. */
export interface RecordedEvent {
  type: string;
  /** The time, in milliseconds since 1970. */
  at: number;
  [field: string]: unknown;
}

/** A line of the file. */
export class RecordedLine {
  /** The bytes in the file, including the newline; for a line that is too long, only the newline. */
  readonly bytes: Buffer;
  /** The line's length in the file, in bytes. */
  readonly length: number;

  constructor(bytes: Buffer, length: number) {
    this.bytes = bytes;
    this.length = length;
  }

  /** The parsed event; undefined for a damaged line. Parsed on each access. */
  get event(): RecordedEvent | undefined {
    return this.bytes.length === this.length ? parseLine(this.bytes) : undefined;
  }

  /** Whether the line is a step's, judged by its first bytes. */
  get isStep(): boolean {
    return this.bytes.subarray(0, STEP.length).equals(STEP);
  }
}

/** Formats an event as a line. The type comes first, so that a reader recognises steps without parsing. */
export function formatEvent({ type, ...rest }: { type: string }, time: number): Buffer {
  return Buffer.from(`${JSON.stringify({ type, at: time, ...rest })}\n`);
}

/** Returns the first line of a file. */
export function formatHeader(line: EventsHeader["line"]): Buffer {
  return formatEvent({ type: "events", version: VERSION, line } as { type: string }, Date.now());
}

/** Parses a line; undefined if it is damaged. */
function parseLine(bytes: Buffer): RecordedEvent | undefined {
  try {
    const value = JSON.parse(bytes.toString("utf8")) as Partial<RecordedEvent> | null;
    if (typeof value === "object" && typeof value?.type === "string" && typeof value.at === "number")
      return value as RecordedEvent;
  } catch {
    // The line was truncated or changed.
  }
  return undefined;
}

/** Returns the first event as a header; undefined if it is not a run's. */
function parseHeader(event: RecordedEvent | undefined): EventsHeader | undefined {
  const line = event?.["line"];
  if (event?.type !== "events" || !Array.isArray(line) || line.length === 0) return undefined;
  const isValid = line.every((segment: { lineage?: unknown } | null) => typeof segment?.lineage === "string");
  return isValid ? (event as unknown as EventsHeader) : undefined;
}

/**
 * Reads the first line of a file; undefined if the file does not exist.
 *
 * Errors: `ERR_FILE_FORMAT` for a file that no run wrote, or that has another version of the format.
 */
export async function readHeader(file: string): Promise<EventsHeader | undefined> {
  for await (const { event } of readLines(file)) {
    const header = parseHeader(event);
    if (header === undefined) break;
    if (header.version === VERSION) return header;
    const what = `${file}: has version ${header.version} of the format, and this is version ${VERSION}`;
    throw new LowrankError("ERR_FILE_FORMAT", `${what}; use the lowrank that wrote it`);
  }
  if (!existsSync(file)) return undefined;
  throw new LowrankError(
    "ERR_FILE_FORMAT",
    `${file}: not written by a run: it does not begin like ${basename(EVENTS)}`,
  );
}

/** Opens a regular file; reading a pipe could block forever. */
async function openRegularFile(file: string): Promise<FileHandle> {
  if (!(await stat(file)).isFile()) throw Object.assign(new Error(`${file}: is no file`), { code: "EISDIR" });
  return open(file);
}

/**
 * Yields the complete lines of a file from an offset up to its present end. Bytes after the last newline are incomplete and
 * are not yielded. A line of more than 1 MiB is yielded as damaged, without its content. Yields nothing if there is no
 * file.
 */
export async function* readLines(file: string, from = 0): AsyncGenerator<RecordedLine, void, void> {
  const handle = await openRegularFile(file).catch((error: unknown) => {
    if (["ENOENT", "ENOTDIR"].includes(readSystemCode(error) ?? "")) return undefined;
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: cannot be read (${readSystemCode(error)})`, {
      cause: error,
    });
  });
  if (handle === undefined) return;
  try {
    const piece = Buffer.allocUnsafe(PIECE);
    let rest: Buffer[] = [];
    let bufferedBytes = 0;
    let offset = from;
    for (;;) {
      const { bytesRead } = await handle.read(piece, 0, PIECE, offset);
      if (bytesRead === 0) return;
      offset += bytesRead;
      let begin = 0;
      for (;;) {
        const end = piece.subarray(0, bytesRead).indexOf(10, begin);
        if (end === -1) break;
        const part = Buffer.from(piece.subarray(begin, end + 1));
        const bytes = rest.length === 0 ? part : Buffer.concat([...rest, part]);
        const length = bufferedBytes + part.length;
        yield length > LONGEST_LINE ? new RecordedLine(NEWLINE, length) : new RecordedLine(bytes, length);
        rest = [];
        bufferedBytes = 0;
        begin = end + 1;
      }
      bufferedBytes += bytesRead - begin;
      if (bufferedBytes <= LONGEST_LINE) rest.push(Buffer.from(piece.subarray(begin, bytesRead)));
      else rest = [];
    }
  } finally {
    await handle.close();
  }
}
