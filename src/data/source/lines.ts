/** Decodes a stream of bytes as strict UTF-8, part by part. */
import { LowrankError } from "../../errors.js";
import type { ByteSource } from "./source.js";
import { measureBom, decodeUtf8 } from "./utf8.js";

/** A source that can be read from its beginning. */
export type Readable = Pick<ByteSource, "name" | "read" | "position">;

/** A part of a text. */
export interface TextChunk {
  text: string;
  /** The line number at its beginning, from 1. */
  line: number;
  /** Bytes of the source read up to its end. */
  read: number;
}

/** The maximum length of a line, in bytes, about half of V8's maximum string length. */
const LONGEST_LINE = 256 << 20;

/** File types that are often mistaken for text, by their first bytes. */
const OTHERS: [name: string, bytes: number[], remedy: string][] = [
  ["compressed by gzip", [0x1f, 0x8b], "unpack it first, such as with gunzip -k"],
  ["a zip archive", [0x50, 0x4b, 0x03, 0x04], "unpack it first"],
  ["compressed by zstd", [0x28, 0xb5, 0x2f, 0xfd], "unpack it first, such as with zstd -d"],
  ["compressed by xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a], "unpack it first, such as with xz -dk"],
  ["compressed by bzip2", [0x42, 0x5a, 0x68], "unpack it first, such as with bunzip2 -k"],
  ["a Parquet file", [0x50, 0x41, 0x52, 0x31], "name it .parquet, or give the data's format, parquet"],
];

function checkBeginning(bytes: Uint8Array, file: string): void {
  const other = OTHERS.find(([, magic]) => magic.every((byte, i) => bytes[i] === byte));
  if (other === undefined) return;
  throw new LowrankError("ERR_FILE_FORMAT", `${file}: is ${other[0]}; ${other[2]}`);
}

function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
  const [first] = parts;
  return parts.length === 1 && first !== undefined ? first : Buffer.concat(parts);
}

function count(bytes: Uint8Array, byte: number): number {
  let n = 0;
  for (let index = bytes.indexOf(byte); index >= 0; index = bytes.indexOf(byte, index + 1)) n++;
  return n;
}

/** Returns the number of trailing bytes that belong to an incomplete character. */
function countUnfinished(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] as number;
    if ((byte & 0xc0) === 0x80) continue;
    const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

/**
 * Yields a source's text, without a byte order mark, in parts that end at a line end (`lines`) or between any two
 * characters.
 *
 * Throws `ERR_FILE_FORMAT` with line and byte offset for invalid UTF-8 and for NUL bytes, and for compressed files;
 * `ERR_DATA_ROW` for an empty source and for a line of more than 256 MiB.
 */
export async function* streamText(
  source: Readable,
  lines: boolean,
  signal?: AbortSignal,
): AsyncGenerator<TextChunk> {
  const { name, position = { offset: 0, line: 1 } } = source;
  const within = position.offset > 0;
  let waiting: Uint8Array[] = [];
  let { offset, line } = position;
  let [held, read, hasBegun] = [0, 0, within];
  const decode = (bytes: Uint8Array): TextChunk => {
    const part = { text: decodeUtf8(bytes, name, offset, line), line, read };
    const nul = bytes.indexOf(0);
    if (nul >= 0) {
      const where = `${name}:${line + count(bytes.subarray(0, nul), 0x0a)}: a NUL byte at byte ${offset + nul}`;
      throw new LowrankError("ERR_FILE_FORMAT", `${where}; text has none: is it binary, or UTF-16?`);
    }
    line += count(bytes, 0x0a);
    offset += bytes.length;
    return part;
  };
  for await (const chunk of source.read(signal)) {
    read += chunk.length;
    waiting.push(chunk);
    held += chunk.length;
    // Wait for enough bytes to recognise the file type.
    if (!hasBegun && held < 8) continue;
    let end = chunk.length;
    if (!hasBegun) {
      const start = dropBom(concatBytes(waiting), name);
      waiting = [start.bytes];
      held = start.bytes.length;
      offset = start.offset;
      end = held;
      hasBegun = true;
    }
    const last = waiting.at(-1) as Uint8Array;
    end = lines ? last.lastIndexOf(0x0a) + 1 : end - countUnfinished(last);
    if (end === 0) {
      if (held > LONGEST_LINE) {
        const what = `the line is longer than ${LONGEST_LINE >> 20} MiB; cut it into rows`;
        throw new LowrankError("ERR_DATA_ROW", `${name}:${line}: ${what}`);
      }
      continue;
    }
    yield decode(concatBytes([...waiting.slice(0, -1), last.subarray(0, end)]));
    waiting = end < last.length ? [last.subarray(end)] : [];
    held = last.length - end;
  }
  if (read === 0 && !within) throw new LowrankError("ERR_DATA_ROW", `${name}: the file is empty`);
  if (!hasBegun) {
    const start = dropBom(concatBytes(waiting), name);
    [waiting, offset] = [[start.bytes], start.offset];
  }
  const rest = concatBytes([...waiting, new Uint8Array()]);
  if (rest.length > 0) yield decode(rest);
}

function dropBom(bytes: Uint8Array, name: string): { bytes: Uint8Array; offset: number } {
  checkBeginning(bytes, name);
  const offset = measureBom(bytes);
  return { bytes: bytes.subarray(offset), offset };
}
