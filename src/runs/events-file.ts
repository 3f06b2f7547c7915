/**
 * `events.jsonl` beside a run's adapter: what the run told, an object a line, each whole or not there. The first line
 * says whose the others are; a run that goes on begins the file anew with what still holds of it, so that no step is in
 * it twice. Whatever looks at runs reads this file and no other.
 */
import { existsSync } from "node:fs";
import { open, stat, type FileHandle } from "node:fs/promises";
import { basename } from "node:path";

import { LowrankError, systemCode } from "../errors.js";

/** Its name in an output folder. */
export const EVENTS = "events.jsonl";
/** Files of branches that were left behind, by their lineage. */
export const LEFT_EVENTS = /^events-[0-9a-f]{12}\.jsonl$/;
const VERSION = 1;

/** Of a file that is a run's the longest line; in any other a longer one is skipped. */
const LONGEST_LINE = 2 ** 20;
const PIECE = 2 ** 16;
const NEWLINE = Buffer.from("\n");
const STEP = Buffer.from('{"type":"step",');

/** The first line. */
export interface EventsHeader {
  type: "events";
  version: number;
  /** Which run, and which of its branches; its last is told from all others. */
  line: readonly { lineage: string; until?: number | undefined }[];
  /** When this file was begun, in milliseconds since 1970. */
  at: number;
}

/** A line after the first: an event of the run, or how it failed. */
export interface RecordedEvent {
  type: string;
  /** When, in milliseconds since 1970. */
  at: number;
  [field: string]: unknown;
}

/** A line of the file. */
export class RecordedLine {
  /** As it stands there, its end included; of a line that is too long only that. */
  readonly bytes: Buffer;
  /** Bytes that it takes in the file. */
  readonly length: number;

  constructor(bytes: Buffer, length: number) {
    this.bytes = bytes;
    this.length = length;
  }

  /** Undefined where it is damaged; parsed anew each time. */
  get event(): RecordedEvent | undefined {
    return this.bytes.length === this.length ? parsedLine(this.bytes) : undefined;
  }

  /** Whether it is a step's, by its first letters. */
  get isStep(): boolean {
    return this.bytes.subarray(0, STEP.length).equals(STEP);
  }
}

/** An object as a line, its type in front, by which a reader tells steps from the rest without parsing. */
export function eventLine({ type, ...rest }: { type: string }, at: number): Buffer {
  return Buffer.from(`${JSON.stringify({ type, at, ...rest })}\n`);
}

/** What begins a file. */
export function headerLine(line: EventsHeader["line"]): Buffer {
  return eventLine({ type: "events", version: VERSION, line } as { type: string }, Date.now());
}

/** The object in a line; undefined where there is none. */
function parsedLine(bytes: Buffer): RecordedEvent | undefined {
  try {
    const value = JSON.parse(bytes.toString("utf8")) as Partial<RecordedEvent> | null;
    if (typeof value === "object" && typeof value?.type === "string" && typeof value.at === "number")
      return value as RecordedEvent;
  } catch {
    // A line that was torn or changed.
  }
  return undefined;
}

/** What the first line of a file says; undefined where the file is no run's. */
function headerOf(event: RecordedEvent | undefined): EventsHeader | undefined {
  const line = event?.["line"];
  if (event?.type !== "events" || !Array.isArray(line) || line.length === 0) return undefined;
  const whole = line.every((one: { lineage?: unknown } | null) => typeof one?.lineage === "string");
  return whole ? (event as unknown as EventsHeader) : undefined;
}

/**
 * The first line of a file; undefined where there is no file.
 *
 * Errors: `ERR_FILE_FORMAT` for a file that no run wrote, or a run of a later version.
 */
export async function readHeader(file: string): Promise<EventsHeader | undefined> {
  for await (const { event } of linesOf(file)) {
    const header = headerOf(event);
    if (header === undefined) break;
    if (header.version === VERSION) return header;
    const what = `${file}: is of version ${header.version} of the format, and this is version ${VERSION}`;
    throw new LowrankError("ERR_FILE_FORMAT", `${what}; look at it with the lowrank that wrote it`);
  }
  if (!existsSync(file)) return undefined;
  throw new LowrankError(
    "ERR_FILE_FORMAT",
    `${file}: no run wrote it: it does not begin as ${basename(EVENTS)}`,
  );
}

/** A file to read, and nothing else that has a name: reading a pipe could wait for ever. */
async function opened(file: string): Promise<FileHandle> {
  if (!(await stat(file)).isFile()) throw Object.assign(new Error(`${file}: is no file`), { code: "EISDIR" });
  return open(file);
}

/**
 * The whole lines of a file from an offset on, as far as it goes when they are read. What stands behind the last end of a line is still
 * being written, or was torn, and is left out; a line of more than 1 MiB is given as damaged, and is not held. Nothing
 * where there is no file.
 */
export async function* linesOf(file: string, from = 0): AsyncGenerator<RecordedLine, void, void> {
  const handle = await opened(file).catch((error: unknown) => {
    if (["ENOENT", "ENOTDIR"].includes(systemCode(error) ?? "")) return undefined;
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: cannot be read (${systemCode(error)})`, {
      cause: error,
    });
  });
  if (handle === undefined) return;
  try {
    const piece = Buffer.allocUnsafe(PIECE);
    let rest: Buffer[] = [];
    let held = 0;
    let at = from;
    for (;;) {
      const { bytesRead } = await handle.read(piece, 0, PIECE, at);
      if (bytesRead === 0) return;
      at += bytesRead;
      let begin = 0;
      for (;;) {
        const end = piece.subarray(0, bytesRead).indexOf(10, begin);
        if (end === -1) break;
        const part = Buffer.from(piece.subarray(begin, end + 1));
        const bytes = rest.length === 0 ? part : Buffer.concat([...rest, part]);
        const length = held + part.length;
        yield length > LONGEST_LINE ? new RecordedLine(NEWLINE, length) : new RecordedLine(bytes, length);
        rest = [];
        held = 0;
        begin = end + 1;
      }
      held += bytesRead - begin;
      if (held <= LONGEST_LINE) rest.push(Buffer.from(piece.subarray(begin, bytesRead)));
      else rest = [];
    }
  } finally {
    await handle.close();
  }
}
