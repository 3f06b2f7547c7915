/** Reads a data file, or rows one by one, and prints the number of rows: `read-large.ts FILE|- COUNT`. */
import type { Row } from "../../src/data/given.js";
import { readData } from "../../src/data/read.js";

const [file = "-", count = "0"] = process.argv.slice(2);

async function* rows(): AsyncGenerator<Row> {
  for (let i = 0; i < Number(count); i++) yield { text: `${i} ${"the sea was wide, ".repeat(50)}` };
}

const data = await readData(file === "-" ? rows() : file);
let read = 0;
for (const source of data.sources) for await (const { part } of source.parts()) read += part.length;
process.stdout.write(String(read));
for (const source of data.sources) source.close();
