/** Data is streamed: a heap much smaller than the data is enough. benches/data-memory.ts measures a gigabyte. */
import { execFile } from "node:child_process";
import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import test from "ava";

import { temporary } from "../hashed.js";

const script = fileURLToPath(new URL("read-large.ts", import.meta.url));
const folder = temporary();

/** Rows of 900 bytes: 36 MB. */
const ROWS = 40_000;
/** The heap of the reading process, in megabytes. */
const HEAP = 24;

const text = (i: number): string => `${i} ${"the sea was wide, ".repeat(50)}`;

/** Writes a file of all rows, a thousand at a time. */
function written(name: string, begin: string, row: (i: number) => string, end: string): string {
  const path = join(folder, name);
  const file = openSync(path, "w");
  writeSync(file, begin);
  for (let from = 0; from < ROWS; from += 1000)
    writeSync(file, Array.from({ length: 1000 }, (_, i) => row(from + i)).join(""));
  writeSync(file, end);
  closeSync(file);
  return path;
}

const json = (i: number): string => JSON.stringify({ text: text(i) });
const files: Record<string, () => string> = {
  "JSON lines": () => written("rows.jsonl", "", (i) => `${json(i)}\n`, ""),
  "a JSON array on one line": () => written("rows.json", "[", (i) => `${i === 0 ? "" : ","}${json(i)}`, "]"),
  CSV: () => written("rows.csv", "text\n", (i) => `"${text(i)}"\n`, ""),
  "Parquet with one group of rows": () => fileURLToPath(new URL("goldens/large.parquet", import.meta.url)),
  "an async iterable": () => "-",
};

for (const [name, file] of Object.entries(files))
  test.serial(`${name}: 36 MB are read in a heap of ${HEAP} MB`, async (t) => {
    const argv = [`--max-old-space-size=${HEAP}`, "--import=tsx", script, file(), String(ROWS)];
    const { stdout } = await promisify(execFile)(process.execPath, argv);
    t.is(stdout, String(ROWS));
  });
