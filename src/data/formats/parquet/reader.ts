/**
 * Reads Parquet with `hyparquet`, an optional package. Each column is decoded page by page, so that memory depends on
 * the page size (1 MiB by default in pyarrow), not on the size of row groups.
 */
import type { DecodedArray } from "hyparquet";

import { throwIfAborted } from "../../../errors.js";
import type { Origin } from "../../source/origin.js";
import type { RandomAccess } from "../../source/source.js";
import type { RawRow, RawRows, RecordReader } from "../records.js";
import { ColumnReader, type Extent } from "./column.js";
import { type Decoder, convertFailure, loadDecoder } from "./decoder.js";
import { type Field, type Group, joinPath, readFooter } from "./footer.js";
import { convertFields } from "./values.js";

/** The maximum rows taken from the columns at once. */
const ROWS = 1024;
/** Bytes of texts per emitted batch of rows. */
const BATCH = 1 << 20;

export const parquet: RecordReader = {
  numbering: "row",
  async *read(source, signal, columns) {
    const decoder = await loadDecoder(source.name);
    const file = await source.openRandomAccess(signal);
    const origin: Origin = { file: source.name, numbering: "row" };
    try {
      const { fields, skipped, groups } = await readFooter(decoder, file, source.name, columns);
      let first = 1;
      let end = 0;
      for (const group of groups) {
        for await (const part of groupRows(
          { decoder, file, fields, skipped, group, first, origin },
          signal,
        )) {
          end = Math.max(end, Math.min(part.read, group.end));
          yield { rows: part.rows, read: end };
        }
        first += group.rows;
      }
    } finally {
      await file.close();
    }
  },
};

interface GroupSource {
  decoder: Decoder;
  file: RandomAccess;
  fields: readonly Field[];
  skipped: readonly string[];
  group: Group;
  /** The number of the group's first row. */
  first: number;
  origin: Origin;
}

/** Yields the rows of a group from all columns. Throws `ERR_FILE_FORMAT` for a column with fewer or more rows. */
async function* groupRows(
  { decoder, file, fields, skipped, group, first, origin }: GroupSource,
  signal: AbortSignal | undefined,
): AsyncGenerator<RawRows> {
  const columns = fields.map(({ tree, leaves }) => ({
    name: tree.element.name,
    tree,
    readers: leaves.map((leaf) => {
      const extent = group.extents.get(joinPath(leaf.column.pathInSchema)) as Extent;
      return new ColumnReader(decoder, file, leaf, extent);
    }),
  }));
  const readers = columns.flatMap((column) => column.readers);
  for (let position = 0; position < group.rows;) {
    throwIfAborted(signal);
    const values = await attempt(origin.file, async () => {
      for (const reader of readers) await reader.fill();
      const count = Math.min(ROWS, group.rows - position, ...readers.map(({ ready }) => ready));
      if (count === 0) throw new Error(`a group of ${group.rows} rows has ${position} in a column`);
      return {
        count,
        columns: columns.map(({ tree, readers: columnReaders }) =>
          assembleRows(decoder, tree, columnReaders, count),
        ),
      };
    });
    const read = group.start + readers.reduce((sum, reader) => sum + reader.read, 0);
    let rows: RawRow[] = [];
    let size = 0;
    for (let i = 0; i < values.count; i++) {
      const number = first + position + i;
      const row: Record<string, unknown> = {};
      for (const [index, { name: field }] of columns.entries())
        row[field] = (values.columns[index] as DecodedArray)[i];
      const { fields: plain, bytes } = convertFields(row, origin, number);
      rows.push({ value: plain, number, skipped });
      size += bytes;
      if (size < BATCH) continue;
      yield { rows, read };
      [rows, size] = [[], 0];
    }
    if (rows.length > 0) yield { rows, read };
    position += values.count;
  }
  await attempt(origin.file, async () => {
    for (const reader of readers)
      if (await reader.hasMore()) throw new Error(`a group of ${group.rows} rows has more in a column`);
  });
}

/** Takes rows of a column, which may have several leaves. */
function assembleRows(
  decoder: Decoder,
  tree: Field["tree"],
  readers: readonly ColumnReader[],
  count: number,
): DecodedArray {
  const leaves = new Map(
    readers.map((reader) => [reader.leaf.column.pathInSchema.join("."), reader.take(count)] as const),
  );
  if (tree.children.length > 0)
    decoder.assembleNested(leaves, tree, (readers[0] as ColumnReader).leaf.column.parsers);
  const rows = leaves.get(tree.path.join("."));
  if (rows?.length !== count) throw new Error(`the column ${tree.element.name} lacks rows`);
  return rows;
}

async function attempt<T>(file: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw convertFailure(file, cause);
  }
}
