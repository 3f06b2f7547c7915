/** A compact store of examples: the concatenated ids of all rows, and a few numbers per row. */
import type { TokenSpan } from "../chat/tokens.js";
import type { Origin } from "./source/origin.js";
import { type DataReport, createReport } from "./report.js";

/** The label of positions that are excluded from the loss. */
export const IGNORED = -100;

/** Token ids with their labels. */
export interface Example {
  ids: Int32Array;
  /** For a language model one label per id, the id itself or −100; for a classifier one per row, its class. */
  labels: Int32Array;
  /** The number of trained predictions: labels after the first position that are not −100, or 1 for a classifier. */
  trained: number;
  /** For speech, a function that returns the samples. */
  audio?: (() => Float32Array) | undefined;
}

/** Examples by index: an array or a store. */
export interface Examples {
  readonly length: number;
  at(row: number): Example | undefined;
}

/** The initial value of FNV-1a. */
const BASIS = 0x811c9dc5;

/** Adds a value to an FNV-1a hash. */
function addToHash(hash: number, value: number): number {
  return Math.imul(hash ^ value, 0x01000193);
}

/** Hashes a row's length, ids and labels. */
function hashExample({ ids, labels }: Pick<Example, "ids" | "labels">): number {
  let hash = addToHash(BASIS, ids.length);
  for (let i = 0; i < ids.length; i++) hash = addToHash(hash, ids[i] as number);
  for (let i = 0; i < labels.length; i++) hash = addToHash(hash, labels[i] as number);
  return hash >>> 0;
}

/** Returns a 32-bit hash of the examples, in hexadecimal. */
export function computeFingerprint(examples: Examples): string {
  let hash = BASIS;
  for (let row = 0; row < examples.length; row++) {
    const own =
      examples instanceof StoredExamples ? examples.hashAt(row) : hashExample(examples.at(row) as Example);
    hash = addToHash(hash, own);
  }
  return (hash >>> 0).toString(16).padStart(8, "0");
}

/** Returns the number of trained predictions of a row. */
export function readTrained(examples: Examples, row: number): number {
  return examples instanceof StoredExamples ? examples.trainedAt(row) : (examples.at(row) as Example).trained;
}

/** Returns the token count of a row. */
export function readLength(examples: Examples, row: number): number {
  return examples instanceof StoredExamples
    ? examples.lengthAt(row)
    : (examples.at(row) as Example).ids.length;
}

/** Returns the number of trained predictions in one pass over all examples. */
export function countTrained(examples: Examples): number {
  let sum = 0;
  for (let row = 0; row < examples.length; row++) sum += readTrained(examples, row);
  return sum;
}

/** Returns the token count of each row. */
export function listLengths(examples: Examples): Uint32Array {
  return Uint32Array.from({ length: examples.length }, (_, row) => readLength(examples, row));
}

/** Returns the example of a row. */
export type RowReader = (row: number) => Example;

/**
 * Returns a reader of the rows that this process asks for. Where each process holds a part of the rows, all processes
 * call it with the same `wanted`, the rows that each of them asks for, and send each other these rows.
 */
export async function gatherRows(
  examples: Examples,
  wanted: readonly (readonly number[])[],
): Promise<RowReader> {
  if (examples instanceof StoredExamples) return examples.gather(wanted);
  return (row) => examples.at(row) as Example;
}

/** A growable typed array. */
class Column {
  #values: Float64Array | Uint32Array | Int32Array;
  length = 0;

  constructor(
    private readonly type: Float64ArrayConstructor | Uint32ArrayConstructor | Int32ArrayConstructor,
  ) {
    this.#values = new type(1024);
  }

  push(value: number): void {
    if (this.length === this.#values.length) {
      const grown = new this.type(Math.ceil(this.length * 1.5));
      grown.set(this.#values);
      this.#values = grown;
    }
    this.#values[this.length++] = value;
  }

  at(place: number): number {
    return this.#values[place] as number;
  }
}

/** Examples from a store, by index. */
export abstract class StoredExamples implements Examples, Iterable<Example> {
  abstract readonly length: number;
  abstract at(row: number): Example | undefined;
  abstract lengthAt(row: number): number;
  abstract trainedAt(row: number): number;
  /** Returns the class of a row; −1 for a language model. */
  abstract classAt(row: number): number;
  abstract hashAt(row: number): number;

  /** Returns a reader of the rows that this process asks for, as `gatherRows`. All rows are here. */
  async gather(_wanted: readonly (readonly number[])[]): Promise<RowReader> {
    return (row) => this.at(row) as Example;
  }

  /** Keeps rows in each process, so that `at` returns them. All processes call it with the same rows. */
  async keep(_rows: readonly number[]): Promise<void> {}

  /** Returns a view of the given rows, in this order. */
  pick(rows: Uint32Array): StoredExamples {
    return new Picked(this, rows);
  }

  *[Symbol.iterator](): Iterator<Example> {
    for (let row = 0; row < this.length; row++) yield this.at(row) as Example;
  }
}

class Picked extends StoredExamples {
  constructor(
    private readonly from: StoredExamples,
    private readonly rows: Uint32Array,
  ) {
    super();
  }

  get length(): number {
    return this.rows.length;
  }

  #locate(row: number): number {
    return this.rows[row] ?? -1;
  }

  override async gather(wanted: readonly (readonly number[])[]): Promise<RowReader> {
    const read = await this.from.gather(wanted.map((rows) => rows.map((row) => this.#locate(row))));
    return (row) => read(this.#locate(row));
  }

  override keep(rows: readonly number[]): Promise<void> {
    return this.from.keep(rows.map((row) => this.#locate(row)));
  }

  override at(row: number): Example | undefined {
    return this.from.at(this.#locate(row));
  }

  override lengthAt(row: number): number {
    return this.from.lengthAt(this.#locate(row));
  }

  override trainedAt(row: number): number {
    return this.from.trainedAt(this.#locate(row));
  }

  override classAt(row: number): number {
    return this.from.classAt(this.#locate(row));
  }

  override hashAt(row: number): number {
    return this.from.hashAt(this.#locate(row));
  }
}

/** Ids per segment of storage. */
const SEGMENT = 1 << 20;

/**
 * All examples of a run's data. A row takes two bytes per id (four for vocabularies above 65,536) plus 16 bytes; a
 * conversation 8 more for each trained turn.
 */
export class ExampleStore extends StoredExamples {
  readonly #segments: (Uint16Array | Int32Array)[] = [];
  readonly #narrow: boolean;
  /** The end of each row's ids, counted from the first row. */
  readonly #ends = new Column(Float64Array);
  /**
   * For a language model the number of leading ids that are not trained on, or −1 − the index of its spans; for a
   * classifier the class.
   */
  readonly #marks = new Column(Int32Array);
  /** For rows with several trained spans: their count, then start and end of each. */
  readonly #spans = new Column(Int32Array);
  readonly #hashes = new Column(Uint32Array);
  /** For rows of speech, functions that return their samples. */
  readonly #audio: (() => Float32Array)[] = [];

  /** The report of each source. */
  readonly reports: DataReport[] = [];
  /** The first row of each source. */
  readonly starts: number[] = [];

  constructor(
    private readonly kind: "tokens" | "classes",
    vocabSize: number = Infinity,
  ) {
    super();
    this.#narrow = vocabSize <= 1 << 16;
  }

  get length(): number {
    return this.#ends.length;
  }

  /** Begins the rows of a source; the returned report counts them. */
  begin(origin: Origin): DataReport {
    const report = createReport(origin);
    this.reports.push(report);
    this.starts.push(this.length);
    return report;
  }

  /** The total number of ids. */
  get tokens(): number {
    return this.#end(this.length - 1);
  }

  /** Appends a row with several trained spans. */
  addSpans(ids: Int32Array, spans: readonly TokenSpan[]): void {
    const place = this.#spans.length;
    this.#spans.push(spans.length);
    for (const { start, end } of spans) {
      this.#spans.push(start);
      this.#spans.push(end);
    }
    this.add(ids, -1 - place);
  }

  /**
   * Appends a row of speech: the ids of its transcript, all trained except the first, and a function that returns the
   * samples.
   */
  addSpeech(ids: Int32Array, audio: () => Float32Array): void {
    this.#audio.push(audio);
    this.add(ids, 0);
  }

  /** Appends a row; `mark` is the number of leading ids that are not trained on, or the class. */
  add(ids: Int32Array, mark: number): void {
    let position = this.tokens;
    const end = position + ids.length;
    for (let done = 0; done < ids.length;) {
      const place = position % SEGMENT;
      if (place === 0) this.#segments.push(this.#narrow ? new Uint16Array(SEGMENT) : new Int32Array(SEGMENT));
      const count = Math.min(SEGMENT - place, ids.length - done);
      this.#segments.at(-1)?.set(ids.subarray(done, done + count), place);
      done += count;
      position += count;
    }
    this.#ends.push(end);
    this.#marks.push(mark);
    this.#hashes.push(hashExample({ ids, labels: this.#buildLabels(ids, mark) }));
  }

  override at(row: number): Example | undefined {
    if (row < 0 || row >= this.length) return undefined;
    const [start, end] = [this.#end(row - 1), this.#end(row)];
    const ids = new Int32Array(end - start);
    for (let position = start; position < end;) {
      const place = position % SEGMENT;
      const count = Math.min(SEGMENT - place, end - position);
      const segment = this.#segments[Math.floor(position / SEGMENT)] as Int32Array;
      ids.set(segment.subarray(place, place + count), position - start);
      position += count;
    }
    const example = {
      ids,
      labels: this.#buildLabels(ids, this.#marks.at(row)),
      trained: this.trainedAt(row),
    };
    const audio = this.#audio[row];
    return audio === undefined ? example : { ...example, audio };
  }

  override lengthAt(row: number): number {
    return this.#end(row) - this.#end(row - 1);
  }

  override trainedAt(row: number): number {
    if (this.kind === "classes") return 1;
    if (this.#marks.at(row) < 0) {
      const counts = this.#readSpans(this.#marks.at(row)).map(({ start, end }) => end - Math.max(start, 1));
      return counts.reduce((sum, count) => sum + Math.max(count, 0), 0);
    }
    const length = this.lengthAt(row);
    return length - Math.max(Math.min(this.#marks.at(row), length), Math.min(1, length));
  }

  override classAt(row: number): number {
    return this.kind === "classes" ? this.#marks.at(row) : -1;
  }

  override hashAt(row: number): number {
    return this.#hashes.at(row);
  }

  #end(row: number): number {
    return row < 0 ? 0 : this.#ends.at(row);
  }

  #buildLabels(ids: Int32Array, mark: number): Int32Array {
    if (this.kind === "classes") return Int32Array.of(mark);
    if (mark >= 0) return ids.slice().fill(IGNORED, 0, mark);
    const labels = new Int32Array(ids.length).fill(IGNORED);
    for (const { start, end } of this.#readSpans(mark)) labels.set(ids.subarray(start, end), start);
    return labels;
  }

  #readSpans(mark: number): TokenSpan[] {
    const place = -1 - mark;
    return Array.from({ length: this.#spans.at(place) }, (_, i) => ({
      start: this.#spans.at(place + 1 + 2 * i),
      end: this.#spans.at(place + 2 + 2 * i),
    }));
  }
}
