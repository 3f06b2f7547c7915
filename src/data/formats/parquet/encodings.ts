/**
 * Checks the numbers that control the decoding of a page's values. hyparquet trusts them: for example, it expands a run
 * of 2³¹ values before it compares anything.
 *
 * Source: https://parquet.apache.org/docs/file-format/data-pages/encodings/
 */
import type { Encoding, ParquetType } from "hyparquet";

import type { Decoder } from "./decoder.js";

/** Returns the number of bits of a level of at most `most`. */
export const computeBitWidth = (most: number): number => 32 - Math.clz32(most);

/** Reads an unsigned varint of up to 32 bits; returns its value and end. */
function readVarint(bytes: Uint8Array, offset: number): [value: number, end: number] {
  let value = 0;
  for (let i = 0; i < 5; i++) {
    const byte = bytes[offset + i];
    if (byte === undefined) break;
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return [value, offset + i + 1];
  }
  throw new Error("a number without an end");
}

/** Checks runs (RLE and bit-packed) of `count` values of `width` bits between `start` and `end`. */
export function checkRuns(bytes: Uint8Array, start: number, end: number, width: number, count: number): void {
  if (end > bytes.length || end < start) throw new Error("runs beyond the end of their page");
  let [seen, offset] = [0, start];
  while (seen < count) {
    const [header, next] = readVarint(bytes, offset);
    const size = Math.floor(header / 2);
    const isPacked = header % 2 === 1;
    seen += isPacked ? size * 8 : size;
    offset = next + (isPacked ? size * width : Math.ceil(width / 8));
    // The last bit-packed group is padded, and its trailing bytes may be missing.
    if (size === 0 || (!isPacked && (seen > count || offset > end)))
      throw new Error("a run of values is damaged");
  }
}

/** Counts the levels equal to `level` in runs that have been checked. */
export function countLevel(
  decoder: Decoder,
  bytes: Uint8Array,
  { start, end, level, count }: { start: number; end: number; level: number; count: number },
): number {
  const levels = new Uint8Array(count);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  decoder.readRleBitPackedHybrid({ view, offset: start }, computeBitWidth(level), levels, end - start);
  let found = 0;
  for (const candidate of levels) if (candidate === level) found++;
  return found;
}

/** The maximum values per block in delta encodings; writers use 128. */
const LARGEST_BLOCK = 1 << 16;

function checkDeltaHeader(bytes: Uint8Array, offset: number): void {
  const [block, next] = readVarint(bytes, offset);
  const [parts] = readVarint(bytes, next);
  const isSound =
    parts > 0 && block > 0 && block % 128 === 0 && block <= LARGEST_BLOCK && (block / parts) % 32 === 0;
  if (!isSound) throw new Error(`delta encoding in blocks of ${block} and ${parts} parts`);
}

/** Checks the sizes of prefix-compressed texts: a page of 1 MiB can expand to terabytes. */
function checkPrefixes(
  decoder: Decoder,
  bytes: Uint8Array,
  offset: number,
  count: number,
  most: number,
): void {
  const reader = { view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), offset };
  const [prefixes, suffixes] = [new Int32Array(count), new Int32Array(count)];
  decoder.deltaBinaryUnpack(reader, count, prefixes);
  checkDeltaHeader(bytes, reader.offset);
  decoder.deltaBinaryUnpack(reader, count, suffixes);
  let [before, total] = [0, 0];
  for (let i = 0; i < count; i++) {
    const [prefix, suffix] = [prefixes[i] as number, suffixes[i] as number];
    if (prefix < 0 || suffix < 0 || prefix > before) throw new Error("a text repeats more than there is");
    before = prefix + suffix;
    total += before;
    if (total > most) throw new Error(`a page of more than ${most >> 20} MiB of texts`);
  }
}

/** Bytes per value of fixed-size types. */
const WIDTHS: Partial<Record<ParquetType, number>> = { INT32: 4, FLOAT: 4, INT64: 8, DOUBLE: 8 };

/**
 * Checks `count` encoded values at `at`, which may expand to at most `most` bytes.
 *
 * Throws for an unsupported encoding, and for numbers that do not fit the page.
 */
export function checkValues(
  decoder: Decoder,
  bytes: Uint8Array,
  {
    at,
    count,
    encoding,
    type,
    width,
    most,
  }: {
    at: number;
    count: number;
    encoding: Encoding;
    type: ParquetType;
    width: number | undefined;
    most: number;
  },
): void {
  const isText = type === "BYTE_ARRAY";
  const isWhole = type === "INT32" || type === "INT64";
  const needed = count * (WIDTHS[type] ?? width ?? 0);
  if (encoding === "PLAIN") return;
  if (encoding === "RLE" && type === "BOOLEAN") return checkRuns(bytes, at + 4, bytes.length, 1, count);
  if ((encoding === "RLE_DICTIONARY" || encoding === "PLAIN_DICTIONARY") && type !== "BOOLEAN") {
    const bits = bytes[at] ?? 32;
    if (bits >= 32) throw new Error("a page without the width of its indices");
    return bits === 0 ? undefined : checkRuns(bytes, at + 1, bytes.length, bits, count);
  }
  if (encoding === "DELTA_BINARY_PACKED" && isWhole) return checkDeltaHeader(bytes, at);
  if (encoding === "DELTA_LENGTH_BYTE_ARRAY" && isText) return checkDeltaHeader(bytes, at);
  if (encoding === "DELTA_BYTE_ARRAY" && isText) {
    checkDeltaHeader(bytes, at);
    return checkPrefixes(decoder, bytes, at, count, most);
  }
  if (encoding === "BYTE_STREAM_SPLIT" && needed > 0 && needed <= bytes.length - at) return;
  throw new Error(`values of type ${type} in the encoding ${encoding}`);
}
