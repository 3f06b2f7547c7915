/** The readers of data files by format. */
import { extname } from "node:path";

import { LowrankError } from "../errors.js";
import { DATA_FORMATS, type DataFormat } from "./format.js";
import { STANDARD_INPUT } from "./source/source.js";
import { csv } from "./formats/csv.js";
import { json } from "./formats/json.js";
import { createJsonLinesReader } from "./formats/json-lines.js";
import { parquet } from "./formats/parquet/reader.js";
import type { RecordReader } from "./formats/records.js";

export const READERS: Readonly<Record<Exclude<DataFormat, "txt">, RecordReader>> = {
  jsonl: createJsonLinesReader(),
  ndjson: createJsonLinesReader(),
  json,
  csv,
  parquet,
};

/** Returns the format of a file: `format`, or from its extension. Throws `ERR_FILE_FORMAT` if neither is known. */
export function detectFormat(file: string, format: DataFormat | undefined): DataFormat {
  const kind = format ?? extname(file).toLowerCase().slice(1);
  const known = DATA_FORMATS.find((candidate) => candidate === kind);
  if (known !== undefined) return known;
  const [last, ...others] = [...DATA_FORMATS].reverse();
  const formats = `${others.reverse().join(", ")} or ${last}`;
  if (file === STANDARD_INPUT)
    throw new LowrankError("ERR_OPTION", `standard input has no name; give the data's format, ${formats}`);
  const ending = extname(file) === "" ? "has no ending" : `ends in ${extname(file)}`;
  throw new LowrankError(
    "ERR_FILE_FORMAT",
    `${file}: the name ${ending}, which is not a data format; give the data's format, ${formats}`,
  );
}
