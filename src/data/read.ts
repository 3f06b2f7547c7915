import { readFile } from "node:fs/promises";
import { extname } from "node:path";
import { LowrankError, systemCode } from "../errors.js";
import { type LabelRow, type TextRow, parseJsonl, rowError } from "./rows.js";
import { bomLength, decodeUtf8 } from "./utf8.js";

/** What a data file holds for a language model: one running text, or rows. */
export type TextData =
  { file: string; kind: "text"; text: string } | { file: string; kind: "rows"; rows: TextRow[] };

/** What it holds for a classifier. */
export interface LabelData {
  file: string;
  kind: "labels";
  rows: LabelRow[];
}

export type Data = TextData | LabelData;

async function readBytes(file: string): Promise<Uint8Array> {
  try {
    return await readFile(file);
  } catch (cause) {
    const code = systemCode(cause);
    if (code === "ENOENT" || code === "ENOTDIR") {
      throw new LowrankError("ERR_FILE_NOT_FOUND", `${file}: no such data file`, { cause });
    }
    const what = code === "EISDIR" ? "is a folder, and a data file was expected" : `cannot be read (${code})`;
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: ${what}`, { cause });
  }
}

/** A `.txt` file's text, without a byte order mark and with every line ending as LF. */
export function parseText(bytes: Uint8Array, file: string): string {
  const start = bomLength(bytes);
  const text = decodeUtf8(bytes.subarray(start), file, start);
  if (text.trim() === "") throw new LowrankError("ERR_DATA_ROW", `${file}: the file has no text`);
  return text.includes("\r") ? text.replaceAll("\r\n", "\n") : text;
}

/**
 * Reads a data file, `.txt` or `.jsonl`.
 *
 * Errors: `ERR_FILE_NOT_FOUND`; `ERR_FILE_FORMAT` for another kind of file or bytes that are not UTF-8;
 * `ERR_DATA_ROW` for a file that is empty or a row that is not as expected.
 */
export async function readData(file: string): Promise<Data> {
  const kind = extname(file).toLowerCase();
  if (kind !== ".txt" && kind !== ".jsonl") {
    await readBytes(file);
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: a data file's name ends in .txt or .jsonl`);
  }
  const bytes = await readBytes(file);
  if (bytes.length === 0) throw new LowrankError("ERR_DATA_ROW", `${file}: the file is empty`);
  if (kind === ".txt") return { file, kind: "text", text: parseText(bytes, file) };
  const rows = parseJsonl(bytes, file);
  if (rows[0]?.kind === "label") return { file, kind: "labels", rows: rows as LabelRow[] };
  return { file, kind: "rows", rows: rows as TextRow[] };
}

/**
 * The data of a language model.
 *
 * Errors: `ERR_DATA_ROW` for rows with labels.
 */
export function textData(data: Data): TextData {
  if (data.kind !== "labels") return data;
  const what =
    'the row has a "label", and the model is a language model; labels train an encoder, such as BERT';
  throw rowError(data.file, data.rows[0]?.line ?? 1, what);
}
