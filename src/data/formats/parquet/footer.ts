/** Reads and checks the metadata at the end of a Parquet file, before anything else is read. */
import type { FileMetaData, RowGroup } from "hyparquet";

import type { RandomAccess } from "../../source/source.js";
import { checkNeeded, FIELDS } from "../columns.js";
import type { Columns } from "../records.js";
import { findUnpacker } from "./codecs.js";
import type { ColumnDecoder, Leaf } from "./page.js";
import type { Extent } from "./column.js";
import { type Decoder, convertFailure, createFileError } from "./decoder.js";

export type Schema = ReturnType<Decoder["parquetSchema"]>;

/** A column that is a field of rows: its schema tree, and its leaves. */
export interface Field {
  tree: Schema;
  leaves: Leaf[];
}

export interface Footer {
  /** The columns that are fields of rows, in schema order. */
  fields: Field[];
  /** The names of the other columns. */
  skipped: string[];
  groups: Group[];
}

/** A row group. */
export interface Group {
  rows: number;
  /** The offset of its first byte. */
  start: number;
  /** The offset after its last byte. */
  end: number;
  /** The extents of its columns, by path. */
  extents: ReadonlyMap<string, Extent>;
}

/** Joins a path into a key; names may contain any character except NUL. */
export const joinPath = (path: readonly string[]): string => path.join("\0");

/**
 * Reads the metadata of a file, skipping columns that are not fields of rows, such as identifiers.
 *
 * Throws `ERR_FILE_FORMAT` for metadata that contradicts itself or the file's size; `ERR_DATA_ROW` for columns that do
 * not form rows; `ERR_OPTION` for a codec whose package is not installed.
 */
export async function readFooter(
  decoder: Decoder,
  file: RandomAccess,
  name: string,
  read: Columns = "training",
): Promise<Footer> {
  try {
    if (file.byteLength === 0) throw new Error("the file is empty");
    const metadata = await decoder.parquetMetadataAsync(file, { geoparquet: false });
    const root = decoder.parquetSchema(metadata);
    checkRows(metadata);
    const columns = root.children.map(({ element }) => element.name);
    checkNeeded(columns, name, read);
    const leaves = root.children.flatMap((child) => listLeaves(child, [root, child]));
    const groups = metadata.row_groups.map((group, i) => readGroup(group, i + 1, leaves, file.byteLength));
    const fields: Field[] = [];
    const skipped: string[] = [];
    for (const [i, tree] of root.children.entries()) {
      if (read === "training" && !FIELDS.includes(columns[i] as string)) {
        skipped.push(columns[i] as string);
        continue;
      }
      const inner = leaves.filter(({ path }) => path[1] === tree);
      fields.push({
        tree,
        leaves: await Promise.all(inner.map((leaf) => checkReadable(leaf, metadata, decoder, name))),
      });
    }
    return { fields, skipped, groups };
  } catch (cause) {
    throw convertFailure(name, cause);
  }

  /** Checks the stated number of rows. */
  function checkRows({ num_rows: statedRows, row_groups: groups }: FileMetaData): void {
    const found = groups.reduce((sum, { num_rows: rows }) => sum + BigInt(rows), 0n);
    if (found !== BigInt(statedRows))
      throw createFileError(name, `it states ${statedRows} rows, but its groups ${found}`);
  }
}

/** A leaf of the schema, with its path from the root. */
interface LeafPath {
  path: Schema[];
  names: string[];
}

function listLeaves(tree: Schema, path: Schema[]): LeafPath[] {
  if (tree.children.length > 0) return tree.children.flatMap((child) => listLeaves(child, [...path, child]));
  return [{ path, names: tree.path }];
}

/** Checks that a row group contains every column once, within the file. */
function readGroup(group: RowGroup, number: number, leaves: readonly LeafPath[], size: number): Group {
  const rows = Number(group.num_rows);
  const { columns = [] } = group;
  const extents = new Map<string, Extent>();
  for (const { meta_data: metadata, file_path: path } of columns) {
    const extent = metadata && readExtent(metadata);
    const isSound =
      extent !== undefined &&
      path === undefined &&
      Object.values(extent).every((value) => Number.isSafeInteger(value) && value >= 0) &&
      extent.start <= extent.end &&
      extent.end <= size;
    if (isSound) extents.set(joinPath(metadata?.path_in_schema ?? []), extent);
  }
  const isWhole =
    Number.isSafeInteger(rows) &&
    rows >= 0 &&
    columns.length === leaves.length &&
    leaves.every(({ names }) => extents.has(joinPath(names)));
  if (!isWhole)
    throw new Error(`the columns of group ${number} do not match the schema, or are outside the file`);
  for (const { path, names } of leaves) {
    const { values } = extents.get(joinPath(names)) as Extent;
    if (countLevels(path).maxRepetition === 0 && values !== rows)
      throw new Error(`group ${number} states ${rows} rows, but its column ${names.join(".")} ${values}`);
  }
  const all = [...extents.values()];
  const [start, end] = [
    Math.min(...all.map((extent) => extent.start)),
    Math.max(...all.map((extent) => extent.end)),
  ];
  return { rows, start, end, extents };
}

function readExtent(metadata: NonNullable<RowGroup["columns"][number]["meta_data"]>): Extent {
  // Some writers put a dictionary first without stating its offset; others state offset 0 without a dictionary.
  const start = Number(metadata.dictionary_page_offset ?? 0) || Number(metadata.data_page_offset);
  return { start, end: start + Number(metadata.total_compressed_size), values: Number(metadata.num_values) };
}

function countLevels(path: readonly Schema[]): { maxRepetition: number; maxDefinition: number } {
  const kinds = path.slice(1).map(({ element }) => element.repetition_type);
  return {
    maxRepetition: kinds.filter((kind) => kind === "REPEATED").length,
    maxDefinition: kinds.filter((kind) => kind !== "REQUIRED").length,
  };
}

/**
 * Builds the decoder of a column. Texts stay bytes until their row is built, so that a page needs no more memory than
 * its size.
 */
async function checkReadable(
  { path, names }: LeafPath,
  { row_groups: groups }: FileMetaData,
  decoder: Decoder,
  name: string,
): Promise<Leaf> {
  const { element } = path.at(-1) as Schema;
  const key = joinPath(names);
  const chunks = groups.map(({ columns }) =>
    columns.find((candidate) => joinPath(candidate.meta_data?.path_in_schema ?? []) === key),
  );
  const [codec, ...others] = [...new Set(chunks.map((chunk) => chunk?.meta_data?.codec))];
  const column = `the column ${names.join(".")}`;
  if (others.length > 0) throw new Error(`${column} is compressed with several codecs`);
  if (element.type === undefined) throw new Error(`${column} has no type`);
  if (element.type === "FIXED_LEN_BYTE_ARRAY")
    throw new Error(`${column} contains bytes, which have no JSON form`);
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const parsers = {
    ...decoder.DEFAULT_PARSERS,
    stringFromBytes: (bytes: Uint8Array | undefined) => bytes,
    jsonFromBytes: (bytes: Uint8Array | undefined): unknown => bytes && JSON.parse(strict.decode(bytes)),
  } as unknown as ColumnDecoder["parsers"];
  const shared = { pathInSchema: names, type: element.type, element, schemaPath: path, parsers };
  return {
    column: { ...shared, codec: codec ?? "UNCOMPRESSED" },
    ...countLevels(path),
    unpack: await findUnpacker(codec ?? "UNCOMPRESSED", decoder, name),
  };
}
