/** Data files for tests, read as in a run. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { SpeechRow } from "../../src/data/speech.js";
import type { Row } from "../../src/data/rows.js";
import { type Data, type LabelData, readData, type RowData, type RunningText } from "../../src/data/read.js";
import { temporary } from "../hashed.js";

export const folder = temporary();
let made = 0;

/** Writes a new file with this name. */
export function write(name: string, content: string | Uint8Array): string {
  const path = join(folder, `${made++}-${name}`);
  writeFileSync(path, content);
  return path;
}

export async function runningText(text: string): Promise<RunningText> {
  return (await readData(write("a.txt", text))) as RunningText;
}

export async function rowsOf(...rows: object[]): Promise<RowData> {
  return (await readData(write("a.jsonl", rows.map((row) => JSON.stringify(row)).join("\n")))) as RowData;
}

export async function labelled(...rows: [text: string, label: string | number][]): Promise<LabelData> {
  return (await rowsOf(...rows.map(([text, label]) => ({ text, label })))) as Data as LabelData;
}

/** Returns the complete content of a data file. */
export async function contentOf(data: Data): Promise<(string | Row | SpeechRow)[]> {
  const parts: (string | Row | SpeechRow)[] = [];
  for (const source of data.sources)
    for await (const { part } of source.parts()) parts.push(...[part].flat());
  return parts;
}
