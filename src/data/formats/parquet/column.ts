/** The rows of one column in a group of rows, read page by page. */
import type { DecodedArray, PageHeader } from "hyparquet";

import type { RandomAccess } from "../../source.js";
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

/** Bytes that are read together, where a page is not longer. */
const BLOCK = 1 << 18;
/** Bytes of the longest header: it can hold two of the page's values. */
const LONGEST_HEADER = 16 << 20;

/** Where a column's pages are in the file, and how many values they have. */
export interface Extent {
  start: number;
  end: number;
  values: number;
}

/** Reads a column of a group. It holds one page, and the dictionary of the column. */
export class ColumnReader {
  /** The file's bytes from `#at`, as far as they have been read. */
  #bytes = new Uint8Array();
  #at: number;
  #dictionary: DecodedArray | undefined;
  /** Values of pages that were not read yet. */
  #left: number;
  /** Decoded rows; those before `#from` are taken. The last one may continue in the next page. */
  #rows: DecodedArray = [];
  #from = 0;
  /** Values of the only decoded row, which may continue. */
  #continued = 0;

  constructor(
    private readonly decoder: Decoder,
    private readonly file: RandomAccess,
    readonly leaf: Leaf,
    private readonly extent: Extent,
  ) {
    this.#at = extent.start;
    this.#left = extent.values;
  }

  /** Bytes that were read. */
  get read(): number {
    return this.#at - this.extent.start;
  }

  /** Complete rows that can be taken. */
  get ready(): number {
    const open = this.leaf.maxRepetition > 0 && this.#left > 0 ? 1 : 0;
    return Math.max(this.#rows.length - this.#from - open, 0);
  }

  /** Takes rows that are ready. */
  take(count: number): DecodedArray {
    const rows = this.#rows.slice(this.#from, this.#from + count);
    this.#from += count;
    if (this.#from === this.#rows.length) [this.#rows, this.#from] = [[], 0];
    return rows;
  }

  /** Reads pages until a row is complete, or to the end of the column. */
  async fill(): Promise<void> {
    while (this.ready === 0 && this.#left > 0) {
      if (this.#at >= this.extent.end) throw new Error("a column has fewer values than its metadata states");
      const header = await this.#header();
      checkHeader(header, this.extent.end - this.#at);
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

  /** Reads to the end of the column if need be, and returns whether rows are left. */
  async hasMore(): Promise<boolean> {
    await this.fill();
    return this.#left > 0 || this.ready > 0;
  }

  #add({ values, definitionLevels, repetitionLevels, count }: PageValues): void {
    if (count > this.#left) throw new Error("a column has more values than its metadata states");
    this.#left -= count;
    if (count === 0) return;
    const { column, maxRepetition } = this.leaf;
    const before = maxRepetition === 0 ? [] : Array.from(this.#rows.slice(this.#from) as ArrayLike<unknown>);
    this.#rows = this.decoder.assembleLists(
      before,
      definitionLevels,
      repetitionLevels,
      values,
      column.schemaPath,
    );
    this.#from = 0;
    this.#continued = this.#rows.length === 1 ? this.#continued + count : 0;
    if (this.#continued > MOST_VALUES) throw new Error(`a row of more than ${MOST_VALUES} values`);
  }

  /** Reads a page's header, which states its length by its end. */
  async #header(): Promise<PageHeader> {
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

  /** Returns at least that many bytes, if the column has them, without a step forward. */
  async #peek(count: number): Promise<Uint8Array> {
    if (this.#bytes.length < count && this.#at + this.#bytes.length < this.extent.end) {
      const end = Math.min(this.extent.end, this.#at + Math.max(count, BLOCK));
      this.#bytes = new Uint8Array(await this.file.slice(this.#at, end));
    }
    return this.#bytes;
  }

  #skip(count: number): void {
    this.#at += count;
    this.#bytes = this.#bytes.subarray(count);
  }
}
