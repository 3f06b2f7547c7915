/** Decodes one page of a column, after checking its numbers. */
import { crc32 } from "node:zlib";
import type { DecodedArray, Encoding, PageHeader } from "hyparquet";

import type { Unpack } from "./codecs.js";
import type { Decoder } from "./decoder.js";
import { computeBitWidth, checkRuns, checkValues, countLevel } from "./encodings.js";

/** The decoder's description of a column. */
export type ColumnDecoder = Parameters<Decoder["readDataPage"]>[2] & Parameters<Decoder["convert"]>[1];

/** A leaf of the schema: a column with values. */
export interface Leaf {
  column: ColumnDecoder;
  /** The number of nested lists around a value. */
  maxRepetition: number;
  /** The number of levels at which a value can be missing. */
  maxDefinition: number;
  unpack: Unpack;
}

/** The present values of a page, with the levels that place them. */
export interface PageValues {
  values: DecodedArray;
  definitionLevels: number[] | undefined;
  repetitionLevels: number[];
  /** The number of values, missing ones included. */
  count: number;
}

/**
 * The maximum bytes of a decompressed page, equal to the longest row of other formats. A page is decoded as a whole.
 */
export const LARGEST_PAGE = 256 << 20;
/** The maximum values of a page: V8 stores longer arrays as hash tables. */
export const MOST_VALUES = 1 << 24;

/**
 * Checks a header's sizes against the bytes left in its column.
 *
 * Throws for impossible sizes, and for a page that is too large.
 */
export function checkHeader(header: PageHeader, left: number): void {
  const { compressed_page_size: packed, uncompressed_page_size: unpacked } = header;
  const isSize = (size: unknown): size is number => Number.isInteger(size) && (size as number) >= 0;
  if (!isSize(packed) || !isSize(unpacked) || packed > left)
    throw new Error("a page beyond the end of its column");
  const values =
    header.data_page_header?.num_values ??
    header.data_page_header_v2?.num_values ??
    header.dictionary_page_header?.num_values ??
    0;
  if (!isSize(values)) throw new Error(`a page of ${values} values`);
  const isLarge = Math.max(unpacked, packed) > LARGEST_PAGE;
  if (!isLarge && values <= MOST_VALUES) return;
  const size = isLarge ? `${Math.ceil(Math.max(unpacked, packed) / 2 ** 20)} MiB` : `${values} values`;
  const most = isLarge ? `${LARGEST_PAGE >> 20} MiB` : `${MOST_VALUES} values`;
  const remedy = "write the file with smaller pages (pyarrow, pandas: data_page_size=1048576)";
  throw new Error(`a page of ${size}, and a page has at most ${most}; ${remedy}`);
}

/** Checks a page's optional checksum. */
export function checkSum(header: PageHeader, bytes: Uint8Array): void {
  if (header.crc !== undefined && crc32(bytes) !== header.crc >>> 0)
    throw new Error("a page's bytes do not match its checksum");
}

/** Decodes the dictionary page, whose values other pages of the column refer to. */
export function decodeDictionary(
  decoder: Decoder,
  header: PageHeader,
  bytes: Uint8Array,
  leaf: Leaf,
): DecodedArray {
  const { num_values: count = 0 } = header.dictionary_page_header ?? {};
  const { type, element } = leaf.column;
  const page = leaf.unpack(bytes, header.uncompressed_page_size);
  const values = decoder.readPlain(
    { view: makeView(page), offset: 0 },
    type,
    count,
    element.type_length as number,
  );
  return decoder.convert(values, leaf.column);
}

/** Decodes a data page of version 1 or 2. */
export function decodePage(
  decoder: Decoder,
  header: PageHeader,
  bytes: Uint8Array,
  leaf: Leaf,
  dictionary: DecodedArray | undefined,
): PageValues {
  const v1 = header.data_page_header;
  const v2 = header.data_page_header_v2;
  if (header.type === "DATA_PAGE" && v1 !== undefined) {
    const page = leaf.unpack(bytes, header.uncompressed_page_size);
    const { start, lengths } = locateLevelsV1(page, leaf);
    const encoding = checkPage(decoder, page, leaf, {
      count: v1.num_values,
      encoding: v1.encoding,
      start,
      lengths,
    });
    const decoded = decoder.readDataPage(page, { ...v1, encoding }, leaf.column);
    return readValues(decoder, decoded, v1.num_values, encoding, leaf, dictionary);
  }
  if (header.type === "DATA_PAGE_V2" && v2 !== undefined) {
    const lengths = [v2.repetition_levels_byte_length, v2.definition_levels_byte_length] as const;
    const page = unpackV2(header, bytes, lengths[0] + lengths[1], leaf);
    const found = { count: v2.num_values, encoding: v2.encoding, start: 0, lengths };
    const encoding = checkPage(decoder, page, leaf, { ...found, missing: v2.num_nulls });
    const plain = { ...header, data_page_header_v2: { ...v2, encoding, is_compressed: false } };
    return readValues(
      decoder,
      decoder.readDataPageV2(page, plain, leaf.column),
      v2.num_values,
      encoding,
      leaf,
      dictionary,
    );
  }
  throw new Error(`a page of type ${header.type}`);
}

const makeView = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Locates the level lists of a version 1 page; each is preceded by its length. */
function locateLevelsV1(page: Uint8Array, { maxRepetition, maxDefinition }: Leaf) {
  const view = makeView(page);
  let offset = 0;
  const next = (most: number): number => {
    if (most === 0) return 0;
    if (offset + 4 > page.length) throw new Error("a page ends before its levels");
    const length = view.getUint32(offset, true);
    offset += 4 + length;
    return length;
  };
  const lengths = [next(maxRepetition), next(maxDefinition)] as const;
  return { start: 4, lengths };
}

/** Decompresses the values of a version 2 page; its levels are never compressed. */
function unpackV2(header: PageHeader, bytes: Uint8Array, levels: number, leaf: Leaf): Uint8Array {
  const size = header.uncompressed_page_size - levels;
  if (!(levels >= 0 && levels <= bytes.length && size >= 0))
    throw new Error("levels beyond the end of their page");
  if (header.data_page_header_v2?.is_compressed === false || size === 0) return bytes;
  const values = leaf.unpack(bytes.subarray(levels), size);
  return values.buffer === bytes.buffer ? bytes : Buffer.concat([bytes.subarray(0, levels), values]);
}

interface Found {
  count: number;
  encoding: Encoding;
  /** Bytes before each level list. */
  start: number;
  /** Bytes of the repetition and definition levels. */
  lengths: readonly [number, number];
  /** The stated number of missing values. */
  missing?: number;
}

/** Checks levels and values. Returns the encoding to decode, PLAIN for a page without values. */
function checkPage(decoder: Decoder, page: Uint8Array, leaf: Leaf, found: Found): Encoding {
  const { count, start: before, lengths, missing } = found;
  const { maxRepetition, maxDefinition, column } = leaf;
  let offset = 0;
  let present = count;
  for (const [i, most] of [maxRepetition, maxDefinition].entries()) {
    if (most === 0) {
      // Version 2 always states a length.
      offset += before === 0 ? (lengths[i] as number) : 0;
      continue;
    }
    const start = offset + before;
    const end = start + (lengths[i] as number);
    checkRuns(page, start, end, computeBitWidth(most), count);
    if (i === 1) present = countLevel(decoder, page, { start, end, level: most, count });
    offset = end;
  }
  if (missing !== undefined && count - missing !== present)
    throw new Error(`a page states ${missing} missing values, but has ${count - present}`);
  if (present === 0) return "PLAIN";
  const { type, element } = column;
  const width = element.type_length;
  checkValues(decoder, page, {
    at: offset,
    count: present,
    encoding: found.encoding,
    type,
    width,
    most: LARGEST_PAGE,
  });
  return found.encoding;
}

function readValues(
  decoder: Decoder,
  { dataPage, definitionLevels, repetitionLevels }: ReturnType<Decoder["readDataPage"]>,
  count: number,
  encoding: Encoding,
  { column }: Leaf,
  dictionary: DecodedArray | undefined,
): PageValues {
  const refers = encoding.endsWith("_DICTIONARY");
  if (refers && (dictionary === undefined || dictionary.length === 0))
    throw new Error("a page refers to a missing dictionary");
  const values = decoder.convertWithDictionary(dataPage, dictionary, encoding, column);
  if (refers && (values as unknown[]).includes(undefined))
    throw new Error("a value beyond the end of its dictionary");
  return { values, definitionLevels, repetitionLevels, count };
}
