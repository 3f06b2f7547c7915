/** Examples that several processes hold in parts, with an index of all of them in each. */
import { LowrankError } from "../errors.js";
import { type DataReport, joinReports } from "./report.js";
import { type Example, type ExampleStore, type RowReader, StoredExamples } from "./store.js";

/** The processes that share the rows. */
export interface RowExchange {
  readonly rank: number;
  readonly size: number;
  /** Returns the value of every process, in rank order. */
  gatherAll<T>(value: T): Promise<T[]>;
  /** Returns the bytes of every process, in rank order. */
  gatherBytes(bytes: Uint8Array): Promise<Uint8Array[]>;
  /** Sends `parts[r]` to each process `r`. Returns what each process sent to this one. */
  exchange(parts: readonly Uint8Array[]): Promise<Uint8Array[]>;
}

/** Rows of one source that one process holds. */
interface Run {
  /** The number of its first row among all rows, and the number of rows. */
  start: number;
  length: number;
  rank: number;
  /** The number of its first row in that process. */
  first: number;
}

/** The index of all rows: 16 bytes for each. */
interface Index {
  lengths: Uint32Array;
  trained: Uint32Array;
  classes: Int32Array;
  hashes: Uint32Array;
}

/**
 * The rows of all processes, in the order of the data: source by source, and within a source rank by rank. `at` returns
 * a row of this process, or a row that `keep` has fetched.
 */
export class SharedExamples extends StoredExamples {
  readonly length: number;
  readonly #store: ExampleStore;
  readonly #processes: RowExchange;
  readonly #runs: readonly Run[];
  readonly #index: Index;
  readonly #examples = new Map<number, Example>();

  private constructor(store: ExampleStore, processes: RowExchange, runs: readonly Run[], index: Index) {
    super();
    this.length = index.lengths.length;
    this.#store = store;
    this.#processes = processes;
    this.#runs = runs;
    this.#index = index;
  }

  /** Joins the rows of all processes, and the reports on their sources. Each process has the same sources. */
  static async join(
    store: ExampleStore,
    processes: RowExchange,
  ): Promise<{ examples: SharedExamples; reports: DataReport[] }> {
    const all = await processes.gatherAll({
      starts: [...store.starts, store.length],
      reports: store.reports,
    });
    const runs: Run[] = [];
    let start = 0;
    for (const source of store.reports.keys())
      for (const [rank, { starts }] of all.entries()) {
        const [first, end] = [starts[source] as number, starts[source + 1] as number];
        runs.push({ start, length: end - first, rank, first });
        start += end - first;
      }
    const column = async <T extends Uint32Array | Int32Array>(
      type: { new (length: number): T; new (bytes: ArrayBuffer): T },
      read: (row: number) => number,
    ): Promise<T> => {
      const values = new type(store.length);
      for (let row = 0; row < store.length; row++) values[row] = read(row);
      const parts = (await processes.gatherBytes(new Uint8Array(values.buffer as ArrayBuffer))).map(
        (bytes) => new type(Uint8Array.from(bytes).buffer),
      );
      const joined = new type(start);
      for (const run of runs)
        joined.set((parts[run.rank] as T).subarray(run.first, run.first + run.length), run.start);
      return joined;
    };
    const index = {
      lengths: await column(Uint32Array, (row) => store.lengthAt(row)),
      trained: await column(Uint32Array, (row) => store.trainedAt(row)),
      classes: await column(Int32Array, (row) => store.classAt(row)),
      hashes: await column(Uint32Array, (row) => store.hashAt(row)),
    };
    const filled = runs.filter(({ length }) => length > 0);
    return {
      examples: new SharedExamples(store, processes, filled, index),
      reports: store.reports.map((_, source) =>
        joinReports(all.map(({ reports }) => reports[source] as DataReport)),
      ),
    };
  }

  override async gather(wanted: readonly (readonly number[])[]): Promise<RowReader> {
    const { rank, size } = this.#processes;
    const sent = Array.from({ length: size }, (_, to) =>
      encodeExamples(
        to === rank
          ? []
          : (wanted[to] ?? []).flatMap((row) => (this.#isOwn(row) ? [this.#readOwn(row)] : [])),
      ),
    );
    const received = (await this.#processes.exchange(sent)).map(decodeExamples);
    const found = new Map<number, Example>();
    const next = received.map(() => 0);
    for (const row of wanted[rank] ?? []) {
      const owner = this.#locate(row).rank;
      if (owner === rank) continue;
      const place = next[owner] as number;
      next[owner] = place + 1;
      found.set(row, received[owner]?.[place] as Example);
    }
    return (row) => found.get(row) ?? (this.at(row) as Example);
  }

  override async keep(rows: readonly number[]): Promise<void> {
    const read = await this.gather(Array.from({ length: this.#processes.size }, () => rows));
    for (const row of rows) this.#examples.set(row, read(row));
  }

  override at(row: number): Example | undefined {
    if (row < 0 || row >= this.length) return undefined;
    if (this.#isOwn(row)) return this.#readOwn(row);
    const example = this.#examples.get(row);
    if (example === undefined)
      throw new LowrankError("ERR_INTERNAL", `row ${row} is held by another process`);
    return example;
  }

  override lengthAt(row: number): number {
    return this.#index.lengths[row] as number;
  }

  override trainedAt(row: number): number {
    return this.#index.trained[row] as number;
  }

  override classAt(row: number): number {
    return this.#index.classes[row] as number;
  }

  override hashAt(row: number): number {
    return this.#index.hashes[row] as number;
  }

  #isOwn(row: number): boolean {
    return this.#locate(row).rank === this.#processes.rank;
  }

  #readOwn(row: number): Example {
    const { start, first } = this.#locate(row);
    return this.#store.at(row - start + first) as Example;
  }

  /** Returns the run that contains a row, by binary search. */
  #locate(row: number): Run {
    let [low, high] = [0, this.#runs.length - 1];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if ((this.#runs[middle] as Run).start <= row) low = middle;
      else high = middle - 1;
    }
    return this.#runs[low] as Run;
  }
}

/** Encodes examples as 32-bit numbers: ids, labels and trained predictions, counted, then ids and labels, of each. */
function encodeExamples(examples: readonly Example[]): Uint8Array {
  const values = new Int32Array(
    examples.reduce((sum, { ids, labels }) => sum + 3 + ids.length + labels.length, 0),
  );
  let offset = 0;
  for (const { ids, labels, trained } of examples) {
    values.set([ids.length, labels.length, trained], offset);
    values.set(ids, offset + 3);
    values.set(labels, offset + 3 + ids.length);
    offset += 3 + ids.length + labels.length;
  }
  return new Uint8Array(values.buffer);
}

function decodeExamples(bytes: Uint8Array): Example[] {
  const values = new Int32Array(Uint8Array.from(bytes).buffer);
  const examples: Example[] = [];
  for (let offset = 0; offset < values.length;) {
    const [count, labels, trained] = values.subarray(offset, offset + 3) as unknown as [
      number,
      number,
      number,
    ];
    const [from, to] = [offset + 3 + count, offset + 3 + count + labels];
    examples.push({ ids: values.slice(offset + 3, from), labels: values.slice(from, to), trained });
    offset = to;
  }
  return examples;
}
