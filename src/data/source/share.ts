/** The part of a file of lines that one of several processes reads: whole pieces, and the lines that begin in them. */
import { createHash } from "node:crypto";

import { LowrankError } from "../../errors.js";
import { createChangedError, type IdentifiedSource } from "./hashed-source.js";
import { joinPieces, PIECE, PieceHasher } from "./pieces.js";
import { type FileRange, type RandomAccess, readRange } from "./source.js";

/** The samples by which processes recognise the same file: their number, and the bytes of each. */
const SAMPLES = 64;
const SAMPLE = 4096;

/** The survey of one range of a file. */
export interface RangeSurvey {
  /** The hash of each piece. */
  hashes: Uint8Array[];
  /** The number of LF bytes. */
  lineEnds: number;
  /** The offset of the first line that begins in the range; undefined if none does. */
  firstLine: number | undefined;
}

/** A range of a file, with its place among the lines of the file. */
export interface FileShare extends FileRange, RangeSurvey {
  path: string;
  /** The LF bytes before the range. */
  linesBefore: number;
  /** The identity of the whole file. */
  identity: string;
}

/** Divides a file of `size` bytes into ranges of whole pieces; returns the range of part `part`. */
export function divideFile(size: number, part: number, parts: number): FileRange {
  const pieces = Math.ceil(size / PIECE);
  const edge = (i: number): number => Math.min(Math.ceil((pieces * i) / parts) * PIECE, size);
  return { start: edge(part), end: edge(part + 1) };
}

/** Hashes evenly spaced samples of a file, so that other processes can recognise it. Throws `ERR_FILE_FORMAT`. */
export async function hashSamples(path: string, size: number): Promise<string> {
  const hash = createHash("sha256");
  for (let i = 0; i < SAMPLES; i++) {
    const start = Math.floor((Math.max(size - SAMPLE, 0) * i) / (SAMPLES - 1));
    for await (const block of readRange(path, { start, end: start + SAMPLE }, undefined)) hash.update(block);
  }
  return hash.digest("hex");
}

/** Hashes the pieces of a range, counts its lines, and finds the first. `onRead` receives the bytes read so far. */
export async function surveyRange(
  path: string,
  { start, end }: FileRange,
  { signal, onRead }: { signal?: AbortSignal | undefined; onRead?: ((read: number) => void) | undefined },
): Promise<RangeSurvey> {
  const hasher = new PieceHasher();
  let firstLine = start === 0 ? 0 : undefined;
  let lineEnds = 0;
  // A line also begins at the start of the range if the byte before it ends a line.
  let position = Math.max(start - 1, 0);
  for await (const block of readRange(path, { start: position, end }, signal)) {
    const bytes = block.subarray(Math.max(start - position, 0));
    hasher.update(bytes);
    if (firstLine === undefined) {
      const found = block.indexOf(0x0a);
      if (found >= 0 && position + found + 1 < end) firstLine = position + found + 1;
    }
    for (let i = bytes.indexOf(0x0a); i >= 0; i = bytes.indexOf(0x0a, i + 1)) lineEnds++;
    position += block.length;
    onRead?.(position - start);
  }
  return { hashes: start === end ? [] : hasher.digest(), lineEnds, firstLine };
}

/** Returns the share of a process from the surveys of all, in the order of their ranges. */
export function createShare(
  path: string,
  size: number,
  part: number,
  surveys: readonly RangeSurvey[],
): FileShare {
  const before = surveys.slice(0, part);
  return {
    path,
    ...divideFile(size, part, surveys.length),
    ...(surveys[part] as RangeSurvey),
    linesBefore: before.reduce((sum, { lineEnds }) => sum + lineEnds, 0),
    identity: joinPieces(surveys.flatMap(({ hashes }) => hashes)),
  };
}

/** The lines of a share. Each read checks the bytes of the range against the survey. */
export class ShareSource implements IdentifiedSource {
  readonly name: string;
  readonly size: number;
  readonly sha256: string;
  /** The position of the first line in the file: its offset, and its number from 1. */
  readonly position: { offset: number; line: number };
  readonly #share: FileShare;

  constructor(share: FileShare) {
    const { path, start, end, firstLine = end, linesBefore, identity } = share;
    this.name = path;
    this.size = end - start;
    this.sha256 = identity;
    // Where a line continues into the range, its end precedes the first line.
    const continued = firstLine > start ? 1 : 0;
    this.position = { offset: firstLine, line: 1 + linesBefore + continued };
    this.#share = share;
  }

  async *read(signal?: AbortSignal): AsyncIterable<Uint8Array> {
    const { path, start, end, hashes, firstLine } = this.#share;
    if (start === end) return;
    const hasher = new PieceHasher();
    let position = start;
    let endsLine = false;
    for await (const block of readRange(path, { start, end }, signal)) {
      hasher.update(block);
      endsLine = block.at(-1) === 0x0a;
      const from = Math.min(Math.max((firstLine ?? end) - position, 0), block.length);
      position += block.length;
      if (from < block.length) yield block.subarray(from);
    }
    if (position < end || joinPieces(hasher.digest()) !== joinPieces(hashes)) throw createChangedError(this);
    // The last line may end in the next range.
    if (firstLine === undefined || endsLine) return;
    for await (const block of readRange(path, { start: end, end: Infinity }, signal)) {
      const found = block.indexOf(0x0a);
      yield found < 0 ? block : block.subarray(0, found + 1);
      if (found >= 0) return;
    }
  }

  openRandomAccess(): Promise<RandomAccess> {
    throw new LowrankError("ERR_INTERNAL", "a share is read from its beginning");
  }

  close(): void {}
}
