/**
 * Peak memory of reading large data, each kind in a separate process:
 *
 *   npx tsx benches/data-memory.ts [GIGABYTES [FOLDER]]
 *
 * Writes files of that size (1 by default) into the folder, reads each twice as a run does (once to check it, once for
 * its rows), and prints the peak of the resident set. A `.parquet` file that is in the folder is read too; pyarrow
 * writes one (test/data/goldens/parquet.py).
 */
import { spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import type { Row } from "../src/data/given.js";
import { closeData, readData } from "../src/data/read.js";

const GIGA = 1e9;
const MEGA = 1e6;

function rowAt(i: number): { instruction: string; input: string; output: string } {
  const output = `Row ${i}: the whale swam on and on, "and" the sea was wide.\n`.repeat(1 + (i % 20));
  return { instruction: `What happened in chapter ${i}?`, input: "", output };
}

const cell = (text: string): string => `"${text.replaceAll('"', '""')}"`;

/** How each kind of file begins, writes a row, and ends. */
const KINDS: Record<string, { begin: string; row: (i: number) => string; end: string }> = {
  txt: { begin: "", row: (i) => rowAt(i).output, end: "" },
  jsonl: { begin: "", row: (i) => `${JSON.stringify(rowAt(i))}\n`, end: "" },
  json: { begin: "[\n", row: (i) => `${i === 0 ? "" : ",\n"}${JSON.stringify(rowAt(i))}`, end: "\n]\n" },
  csv: {
    begin: "instruction,input,output\r\n",
    row: (i) => `${Object.values(rowAt(i)).map(cell).join(",")}\r\n`,
    end: "",
  },
};

function write(path: string, kind: string, bytes: number): void {
  const { begin, row, end } = KINDS[kind] as (typeof KINDS)[string];
  const file = openSync(path, "w");
  let block = begin;
  let written = 0;
  for (let i = 0; written < bytes; i++) {
    block += row(i);
    if (block.length < MEGA) continue;
    written += writeSync(file, block);
    block = "";
  }
  writeSync(file, block + end);
  closeSync(file);
}

/** Yields rows of about that many bytes. */
async function* rows(bytes: number): AsyncGenerator<Row> {
  let made = 0;
  for (let i = 0; made < bytes; i++) {
    const row = rowAt(i);
    made += JSON.stringify(row).length + 1;
    yield row;
  }
}

/** Reads data twice in this process, and prints how many rows it had and the peak. */
async function measure(what: string, bytes: number): Promise<void> {
  const began = performance.now();
  const data = await readData(what === "iterable" ? rows(bytes) : what);
  let count = 0;
  for (const source of data.sources) for await (const { part } of source.parts()) count += part.length;
  const seconds = (performance.now() - began) / 1000;
  closeData(data);
  const peak = process.resourceUsage().maxRSS / 1024;
  const name = what.replace(/^.*[\\/]/, "").padEnd(14);
  process.stdout.write(
    `${name} ${peak.toFixed(0).padStart(5)} MiB at most, ${seconds.toFixed(0).padStart(4)} s, ${count} ${data.kind}\n`,
  );
}

const [first = "1", second, third] = process.argv.slice(2);
if (first === "--measure") await measure(second as string, Number(third));
else {
  const bytes = Number(first) * GIGA;
  const folder = second ?? mkdtempSync(join(tmpdir(), "lowrank-data-memory-"));
  const own = second === undefined;
  try {
    for (const kind of Object.keys(KINDS)) {
      const path = join(folder, `rows.${kind}`);
      if (!existsSync(path) || statSync(path).size < bytes) write(path, kind, bytes);
    }
    const files = readdirSync(folder).filter((name) => /\.(txt|jsonl|json|csv|parquet)$/.test(name));
    for (const what of [...files.map((name) => join(folder, name)), "iterable"]) {
      const self = [fileURLToPath(import.meta.url), "--measure", what, String(bytes)];
      const { status } = spawnSync(process.execPath, ["--import=tsx", ...self], { stdio: "inherit" });
      if (status !== 0) process.exitCode = 1;
    }
  } finally {
    if (own) rmSync(folder, { recursive: true });
  }
}
