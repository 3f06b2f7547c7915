/** Reads Parquet by groups of rows, with `hyparquet`, which users install. */
import type { Compressors, FileMetaData, ParquetReadOptions, RowGroup } from "hyparquet";

import { LowrankError, systemCode, throwIfAborted } from "../../errors.js";
import { type Origin, rowError } from "../origin.js";
import type { Source } from "../source.js";
import { checkNeeded, FIELDS } from "./columns.js";
import type { RawRow, RecordReader } from "./records.js";

/** Unpacked bytes that are read together. Larger groups of rows are read by pages. */
const SLICE = 16 << 20;
/** Unpacked bytes of the largest group of rows that is read whole. */
const LARGEST_GROUP = 1 << 30;
/** Codecs that `hyparquet` has itself. */
const OWN_CODECS = ["UNCOMPRESSED", "SNAPPY"];

type Reader = typeof import("hyparquet");

export const parquet: RecordReader = {
  numbering: "row",
  async *read(source, signal) {
    const reader = (await optional("hyparquet", `${source.name}: Parquet`)) as Reader;
    const file = await source.random(signal);
    try {
      const metadata = await reader
        .parquetMetadataAsync(file, { geoparquet: false })
        .catch((cause: unknown) => refuse(source, cause));
      checkChunks(metadata, file.byteLength, source.name);
      const columns = columnsOf(metadata, source.name);
      const compressors = await compressorsFor(metadata, columns, source.name);
      const options = {
        file,
        metadata,
        columns,
        ...(compressors && { compressors }),
        parsers: parsersOf(source),
      };
      let start = 0;
      let end = 0;
      for (const group of metadata.row_groups) {
        for (const count of slicesOf(group, columns, source.name)) {
          throwIfAborted(signal);
          const rows = await rowsOf(reader, { ...options, rowStart: start, rowEnd: start + count }, source);
          start += count;
          end = Math.max(end, Math.min(endOf(group), file.byteLength));
          yield { rows, read: end };
        }
      }
    } finally {
      await file.close();
    }
  },
};

/** A package that users install by themselves. Throws `ERR_OPTION` with the command that does. */
async function optional(name: string, what: string): Promise<unknown> {
  try {
    // By a variable, so that bundlers leave it alone where it is not installed.
    return await import(/* webpackIgnore: true */ /* @vite-ignore */ name);
  } catch (cause) {
    if (!["ERR_MODULE_NOT_FOUND", "MODULE_NOT_FOUND"].includes(systemCode(cause) ?? "")) throw cause;
    throw new LowrankError("ERR_OPTION", `${what} needs the package ${name}; run: npm install ${name}`, {
      cause,
    });
  }
}

function refuse(source: Source, cause: unknown): never {
  if (cause instanceof LowrankError) throw cause;
  const problem = (cause instanceof Error ? cause.message : String(cause)).replaceAll(/\s+/g, " ");
  throw new LowrankError(
    "ERR_FILE_FORMAT",
    `${source.name}: not a Parquet file that can be read: ${problem}`,
    {
      cause,
    },
  );
}

/** Returns the columns that are fields of rows. Others, such as identifiers, are not read. */
function columnsOf({ schema }: FileMetaData, file: string): string[] {
  const names: string[] = [];
  // The schema is a tree as a list: each element is followed by its children.
  for (let at = 1, left = schema[0]?.num_children ?? 0; left > 0 && at < schema.length; left--) {
    names.push((schema[at] as { name: string }).name);
    for (let inside = 1; inside > 0 && at < schema.length; inside--)
      inside += schema[at++]?.num_children ?? 0;
  }
  checkNeeded(names, file);
  return names.filter((name) => FIELDS.includes(name));
}

/** The path of each column that holds values, whose names are joined by NUL. */
function leavesOf(schema: FileMetaData["schema"]): string[] {
  const leaves: string[] = [];
  let at = 1;
  const add = (children: number, path: readonly string[]): void => {
    for (let i = 0; i < children && at < schema.length; i++) {
      const { name, num_children: inside } = schema[at++] as FileMetaData["schema"][number];
      if (inside) add(inside, [...path, name]);
      else leaves.push([...path, name].join("\0"));
    }
  };
  add(schema[0]?.num_children ?? 0, []);
  return leaves;
}

/**
 * Checks that each group of rows has every column once, within the file. `hyparquet` relies on it: it awaits the columns of
 * the schema alone, so that a failure to read any other would end the process.
 *
 * Errors: `ERR_FILE_FORMAT`.
 */
function checkChunks({ schema, row_groups: groups }: FileMetaData, size: number, file: string): void {
  const leaves = leavesOf(schema).sort().join("\n");
  const isSound = ({ meta_data: of }: RowGroup["columns"][number]): boolean => {
    const begin = Number(of?.dictionary_page_offset ?? of?.data_page_offset);
    const numbers = [
      begin,
      Number(of?.data_page_offset),
      Number(of?.total_compressed_size),
      Number(of?.num_values),
    ];
    return (
      numbers.every((one) => Number.isSafeInteger(one) && one >= 0) && begin + (numbers[2] as number) <= size
    );
  };
  for (const [i, { columns = [] }] of groups.entries()) {
    const found = columns.map(({ meta_data: of }) => of?.path_in_schema?.join("\0") ?? "");
    if (found.sort().join("\n") === leaves && columns.every(isSound)) continue;
    const what = `the columns of group ${i + 1} are not those of its schema, or lie outside the file`;
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: not a Parquet file that can be read: ${what}`);
  }
}

const isRead = (columns: readonly string[]) => (chunk: RowGroup["columns"][number]) =>
  columns.includes(chunk.meta_data?.path_in_schema[0] as string);

async function compressorsFor(
  { row_groups: groups }: FileMetaData,
  columns: readonly string[],
  file: string,
): Promise<Compressors | undefined> {
  const codecs = groups.flatMap((group) =>
    group.columns.filter(isRead(columns)).map((one) => one.meta_data?.codec),
  );
  const other = codecs.find((codec) => codec !== undefined && !OWN_CODECS.includes(codec));
  if (other === undefined) return undefined;
  const what = `${file}: Parquet compressed by ${other.toLowerCase()}`;
  const { compressors } = (await optional("hyparquet-compressors", what)) as { compressors: Compressors };
  return compressors;
}

/** How many rows of a group to read at once, one number for each time. Throws `ERR_FILE_FORMAT` for a group too large. */
function slicesOf(group: RowGroup, columns: readonly string[], file: string): number[] {
  const total = Number(group.num_rows);
  const chunks = group.columns.filter(isRead(columns));
  const bytes = chunks.reduce((sum, one) => sum + Number(one.meta_data?.total_uncompressed_size ?? 0), 0);
  if (!(Number.isSafeInteger(total) && total >= 0 && bytes >= 0))
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: a group of ${total} rows and ${bytes} bytes`);
  const byPages = chunks.every((one) => one.offset_index_offset !== undefined);
  if (bytes <= SLICE || !byPages) {
    if (bytes <= LARGEST_GROUP) return [total];
    const size = `${Math.ceil(bytes / 2 ** 20)} MiB`;
    const remedy = "write it with smaller groups (pandas, pyarrow: row_group_size) or with a page index";
    throw new LowrankError(
      "ERR_FILE_FORMAT",
      `${file}: a group of rows of ${size} is read as a whole; ${remedy}`,
    );
  }
  const each = Math.max(1, Math.floor((total * SLICE) / bytes));
  return Array.from({ length: Math.ceil(total / each) }, (_, i) => Math.min(each, total - i * each));
}

/** Where a group's bytes end. */
function endOf(group: RowGroup): number {
  const last = group.columns.map(({ meta_data: of }) =>
    of === undefined
      ? 0
      : Number(of.dictionary_page_offset ?? of.data_page_offset) + Number(of.total_compressed_size),
  );
  return Math.max(0, ...last);
}

type Slice = Omit<ParquetReadOptions, "onComplete" | "rowFormat"> & { rowStart: number };

async function rowsOf(reader: Reader, slice: Slice, source: Source): Promise<RawRow[]> {
  const origin: Origin = { file: source.name, numbering: "row" };
  const found = await reader
    .parquetReadObjects({ ...slice, useOffsetIndex: true } as Parameters<Reader["parquetReadObjects"]>[0])
    .catch((cause: unknown) => refuse(source, cause));
  const expected = (slice.rowEnd as number) - slice.rowStart;
  if (found.length !== expected)
    throw new LowrankError(
      "ERR_FILE_FORMAT",
      `${source.name}: has ${found.length} of ${expected} rows of a group`,
    );
  return found.map((fields, i) => {
    const number = slice.rowStart + i + 1;
    return { value: plainFields(fields, origin, number), number };
  });
}

/** Fields as JSON would have them. Every column may be null, so those that are null are left out. */
function plainFields(
  fields: Record<string, unknown>,
  origin: Origin,
  number: number,
): Record<string, unknown> {
  const plain: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(fields)) {
    if ((value ?? null) === null) continue;
    plain[name] = plainValue(value, (is) => {
      throw rowError(origin, number, `"${name}" holds ${is}, which is no value of JSON`);
    });
  }
  return plain;
}

function plainValue(value: unknown, refuseValue: (is: string) => never): unknown {
  if (typeof value === "bigint") {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : refuseValue(`the number ${value}`);
  }
  if (typeof value !== "object" || value === null) return value;
  if (value instanceof Date) return value.toJSON();
  if (Array.isArray(value)) return value.map((one) => plainValue(one, refuseValue));
  if (ArrayBuffer.isView(value)) return refuseValue("bytes");
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, plainValue(one, refuseValue)]));
}

/** Texts are strictly UTF-8, as in every other file. */
function parsersOf(source: Source): ParquetReadOptions["parsers"] {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  return {
    stringFromBytes: (bytes: Uint8Array | undefined) => {
      if (bytes === undefined) return undefined;
      try {
        return decoder.decode(bytes);
      } catch (cause) {
        throw new LowrankError("ERR_FILE_FORMAT", `${source.name}: a text that is not UTF-8`, { cause });
      }
    },
  } as ParquetReadOptions["parsers"];
}
