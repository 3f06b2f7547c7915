/** Reads the rows of one column in a row group, page by page. */
import type { DecodedArray, PageHeader } from "hyparquet";

import type { RandomAccess } from "../../source/source.js";
import type { Decoder } from "./decoder.js";
import {
  checkHeader,
  checkSum,
  decodeDictionary,
  decodePage,
  type Leaf,
  MOST_VALUES,
  type PageValues,
} from "./page.js";

/** Bytes per read, unless a page is longer. */
const BLOCK = 1 << 18;
/** The maximum bytes of a header, which can contain two of the page's values. */
const LONGEST_HEADER = 16 << 20;

/** The byte range of a column's pages in the file, and their number of values. */
export interface Extent {
  start: number;
  end: number;
  values: number;
}

/** Reads a column of a row group, keeping one page and the column's dictionary in memory. */
export class ColumnReader {
  /** Bytes of the file from `#offset` that have been read. */
  #bytes = new Uint8Array();
  #offset: number;
  #dictionary: DecodedArray | undefined;
  /** Values in pages not yet read. */
  #remaining: number;
  /** Decoded rows; those before `#firstRow` have been taken. The last row may continue in the next page. */
  #rows: DecodedArray = [];
  #firstRow = 0;
  /** Values of a row that fills whole pages and may continue. */
  #continuedValues = 0;

  constructor(
    private readonly decoder: Decoder,
    private readonly file: RandomAccess,
    readonly leaf: Leaf,
    private readonly extent: Extent,
  ) {
    this.#offset = extent.start;
    this.#remaining = extent.values;
  }

  /** Bytes consumed so far. */
  get read(): number {
    return this.#offset - this.extent.start;
  }

  /** The number of complete rows to take. */
  get ready(): number {
    const open = this.leaf.maxRepetition > 0 && this.#remaining > 0 ? 1 : 0;
    return Math.max(this.#rows.length - this.#firstRow - open, 0);
  }

  /** Takes `count` complete rows. */
  take(count: number): DecodedArray {
    const rows = this.#rows.slice(this.#firstRow, this.#firstRow + count);
    this.#firstRow += count;
    if (this.#firstRow === this.#rows.length) [this.#rows, this.#firstRow] = [[], 0];
    return rows;
  }

  /** Reads pages until a row is complete, or to the end of the column. */
  async fill(): Promise<void> {
    while (this.ready === 0 && this.#remaining > 0) {
      if (this.#offset >= this.extent.end)
        throw new Error("a column has fewer values than its metadata states");
      const header = await this.#readHeader();
      checkHeader(header, this.extent.end - this.#offset);
      const bytes = (await this.#peek(header.compressed_page_size)).subarray(0, header.compressed_page_size);
      this.#skip(bytes.length);
      checkSum(header, bytes);
      if (header.type === "DICTIONARY_PAGE") {
        if (this.#dictionary !== undefined) throw new Error("a column with two dictionaries");
        this.#dictionary = decodeDictionary(this.decoder, header, bytes, this.leaf);
      } else if (header.type !== "INDEX_PAGE") {
        this.#add(decodePage(this.decoder, header, bytes, this.leaf, this.#dictionary));
      }
    }
  }

  /** Returns whether rows are left, reading up to the end of the column if necessary. */
  async hasMore(): Promise<boolean> {
    await this.fill();
    return this.#remaining > 0 || this.ready > 0;
  }

  #add({ values, definitionLevels, repetitionLevels, count }: PageValues): void {
    if (count > this.#remaining) throw new Error("a column has more values than its metadata states");
    this.#remaining -= count;
    if (count === 0) return;
    const { column, maxRepetition } = this.leaf;
    const before =
      maxRepetition === 0 ? [] : Array.from(this.#rows.slice(this.#firstRow) as ArrayLike<unknown>);
    this.#rows = this.decoder.assembleLists(
      before,
      definitionLevels,
      repetitionLevels,
      values,
      column.schemaPath,
    );
    this.#firstRow = 0;
    this.#continuedValues = this.#rows.length === 1 ? this.#continuedValues + count : 0;
    if (this.#continuedValues > MOST_VALUES) throw new Error(`a row of more than ${MOST_VALUES} values`);
  }

  /** Reads a page's header; its length is known only after parsing. */
  async #readHeader(): Promise<PageHeader> {
    for (let length = 1 << 10; ; length *= 8) {
      const bytes = await this.#peek(length);
      const reader = { view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), offset: 0 };
      try {
        const header = this.decoder.parquetHeader(reader);
        this.#skip(reader.offset);
        return header;
      } catch (cause) {
        if (bytes.length < length || length >= LONGEST_HEADER) throw cause;
      }
    }
  }

  /** Returns at least `count` bytes, if the column has them, without consuming them. */
  async #peek(count: number): Promise<Uint8Array> {
    if (this.#bytes.length < count && this.#offset + this.#bytes.length < this.extent.end) {
      const end = Math.min(this.extent.end, this.#offset + Math.max(count, BLOCK));
      this.#bytes = new Uint8Array(await this.file.slice(this.#offset, end));
    }
    return this.#bytes;
  }

  #skip(count: number): void {
    this.#offset += count;
    this.#bytes = this.#bytes.subarray(count);
  }
}
