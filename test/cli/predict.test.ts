/** `lowrank predict`: a line for each row, in input order, with the class that `evaluate` counts. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";

import { streamWindows } from "../../src/cli/predict-rows.js";
import { openSource } from "../../src/data/source/source.js";
import { temporary, tinyModel } from "../hashed.js";
import { CLI } from "../programs.js";
import { rowsFile, seaAndLand, tinyEncoder } from "../tiny-encoder.js";
import { lowrank, ONE_LINE } from "./lowrank.js";

interface Line {
  text: string;
  label: string;
  scores: Record<string, number>;
  [field: string]: unknown;
}

const linesOf = (text: string): Line[] =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Line);

let adapter: string;
test.before(async () => {
  adapter = join(temporary(), "out");
  // Few steps, so that some rows are misclassified.
  const argv = ["--model", await tinyEncoder(), "--data", rowsFile(seaAndLand(40)), "--output", adapter];
  const steps = ["--steps", "3", "--lr", "0.01", "--batch-size", "4", "--rank", "2", "--device", "cpu"];
  const { status, stderr } = await lowrank(["finetune", ...argv, ...steps]);
  if (status !== 0) throw new Error(stderr);
});

const predict = (...argv: string[]): ReturnType<typeof lowrank> =>
  lowrank(["predict", "--adapter", adapter, "--device", "cpu", ...argv]);

test.serial("rows keep their order and fields; the accuracy equals evaluate's", async (t) => {
  const rows = seaAndLand(60).map((row, i) => ({
    id: i,
    ...row,
    nested: { label: "kept", list: [{ label: 1 }] },
  }));
  // A number that JavaScript would round, and the original spaces.
  const texts = rows.map((row) => JSON.stringify(row).replace('{"id":', '{ "id" : 90071992547409930'));
  const data = join(temporary(), "rows.jsonl");
  writeFileSync(data, `${texts.slice(0, 30).join("\r\n")}\n\n${texts.slice(30).join("\n")}`);
  const evaluated = await lowrank([
    "evaluate",
    "--adapter",
    adapter,
    "--data",
    data,
    "--device",
    "cpu",
    "--json",
  ]);
  t.is(evaluated.status, 0, evaluated.stderr);
  const { accuracy, confusion, labels } = JSON.parse(evaluated.stdout) as {
    accuracy: number;
    confusion: number[][];
    labels: string[];
  };
  const { status, stdout, stderr } = await predict("--data", data, "--batch-size", "7");
  t.is(status, 0, stderr);
  const found = linesOf(stdout);
  t.is(found.length, rows.length);
  const counted = labels.map(() => labels.map(() => 0));
  for (const [i, line] of found.entries()) {
    const { text, label, nested } = rows[i] as (typeof rows)[number];
    t.true((stdout.split("\n")[i] as string).startsWith(`{ "id" : 90071992547409930${i},`));
    t.like(line, { text, expected: label, nested });
    t.deepEqual(Object.keys(line.scores), labels);
    t.is(line.scores[line.label], Math.max(...Object.values(line.scores)));
    t.true(Math.abs(Object.values(line.scores).reduce((sum, one) => sum + one, 0) - 1) < 1e-5);
    const row = counted[labels.indexOf(label)] as number[];
    const place = labels.indexOf(line.label);
    row[place] = (row[place] as number) + 1;
  }
  t.deepEqual(counted, confusion);
  t.is(found.filter(({ label, expected }) => label === expected).length / rows.length, accuracy);
  t.true(accuracy < 1, "a test of mistakes needs some");
  const long = rows.filter(({ text }) => text.length > 30).length;
  t.true(long > 0);
  t.regex(
    stderr,
    new RegExp(`^lowrank: warning: .*rows\\.jsonl: ${long} of 60 rows are longer than 32 tokens .*\\n$`),
  );
});

test.serial("lines of text, texts of the command line and standard input", async (t) => {
  const data = join(temporary(), "texts.txt");
  writeFileSync(data, "sss waves\r\n\nmmm hills");
  const file = await predict("--data", data);
  t.is(file.status, 0, file.stderr);
  const lines = linesOf(file.stdout);
  t.deepEqual(
    lines.map(({ text }) => text),
    ["sss waves", "", "mmm hills"],
  );
  t.deepEqual(Object.keys(lines[0] as Line), ["text", "label", "scores"]);
  const typed = await predict("--text", "sss waves", "--text", "", "--text", "mmm hills", "--top-k", "1");
  for (const [i, { text, label, scores }] of linesOf(typed.stdout).entries()) {
    t.like(lines[i], { text, label });
    t.deepEqual(scores, { [label]: lines[i]?.scores[label] as number });
  }
  // Each part of standard input is answered before the next one is sent.
  const argv = ["predict", "--adapter", adapter, "--device", "cpu", "--data", "-", "--data-format", "jsonl"];
  const child = spawn(process.execPath, [CLI, ...argv], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  let out = "";
  child.stdout.setEncoding("utf8").on("data", (part: string) => (out += part));
  for (const [i, line] of lines.entries()) {
    child.stdin.write(`${JSON.stringify({ text: line.text, id: i })}\n`);
    while (out.split("\n").length < i + 2) await once(child.stdout, "data");
    const last = linesOf(out).at(-1) as Line;
    t.like(last, { text: line.text, id: i, label: line.label });
  }
  child.stdin.end();
  t.deepEqual(await once(child, "close"), [0, null]);
});

test.serial("an output file is complete or absent, and is replaced only with --yes", async (t) => {
  const folder = temporary();
  const output = join(folder, "deep", "found.jsonl");
  const data = rowsFile([{ text: "sss" }, { text: "mmm\u009bred" }]);
  const first = await predict("--data", data, "--output", output);
  t.is(first.status, 0, first.stderr);
  t.is(first.stdout, "");
  const text = readFileSync(output, "utf8");
  t.deepEqual(
    linesOf(text).map((line) => line.text),
    ["sss", "mmm\u009bred"],
  );
  t.false(text.includes("\u009b"));
  const again = await predict("--data", data, "--output", output);
  t.is(again.status, 1);
  t.regex(again.stderr, /found\.jsonl: exists; .*--yes/);
  const bad = rowsFile([{ text: "sss" }, { text: 3 }], "bad.jsonl");
  const failed = await predict("--data", bad, "--output", output, "--yes");
  t.is(failed.status, 1);
  t.regex(failed.stderr, /bad\.jsonl:2: "text" must be a string/);
  t.is(readFileSync(output, "utf8"), text);
  t.is((await predict("--data", rowsFile([{ text: "x" }]), "--output", output, "--yes")).status, 0);
  t.is(linesOf(readFileSync(output, "utf8")).length, 1);
  const onto = await predict("--data", output, "--output", output, "--yes");
  t.is(onto.status, 2);
  t.regex(onto.stderr, /--output is the file of --data/);
  t.deepEqual(readdirSync(join(folder, "deep")), ["found.jsonl"]);
  t.regex((await predict("--text", "a", "--output", folder, "--yes")).stderr, /is not a regular file/);
});

test.serial("unusable rows and models are one line, and nothing is printed", async (t) => {
  const cases: [rows: string, message: RegExp][] = [
    ['{"text": "a"}\n{"text": ', /:2: not JSON: \{"text":/],
    ['{"text": "a"}\n[1]', /:2: the row must be an object/],
    ['{"prompt": "a"}', /:1: the field "text" is missing/],
    ['{"text": "a", "scores": 1}', /:1: the row has a field "scores", which predict writes/],
    ['{"text": "a", "label": "x", "expected": "y"}', /:1: the row has a field "expected"/],
    ["", /the file is empty/],
  ];
  for (const [text, message] of cases) {
    const data = join(temporary(), "rows.jsonl");
    writeFileSync(data, text);
    const { status, stdout, stderr } = await predict("--data", data);
    t.is(status, 1, text);
    t.is(stdout, "");
    t.regex(stderr, message);
    t.regex(stderr, ONE_LINE);
  }
  const writes = await lowrank(["predict", "--model", tinyModel(), "--text", "a", "--device", "cpu"]);
  t.is(writes.status, 1);
  t.regex(writes.stderr, /this model is not a classifier of texts; name a classifier, or with --adapter/);
  t.true(existsSync(adapter));
});

test.serial("the same rows from JSON lines, JSON, CSV and Parquet give the same lines", async (t) => {
  const rows = [
    { text: "t0", label: "a" },
    { text: "t1", label: "b" },
    { text: "t2", label: "c" },
  ];
  const more = rows.map((row, i) => ({ id: `00${i}`, ...row, note: `a "note", with\nlines ${i}` }));
  const cell = (value: string): string => `"${value.replaceAll('"', '""')}"`;
  const csv = (delimiter: string): string =>
    [Object.keys(more[0] as object), ...more.map((row) => Object.values(row))]
      .map((cells) => `${cells.map(cell).join(delimiter)}\r\n`)
      .join("");
  const folder = temporary();
  const file = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const jsonl = file("a.jsonl", more.map((row) => JSON.stringify(row)).join("\n"));
  const expected = (await predict("--data", jsonl)).stdout;
  t.is(linesOf(expected).length, 3);
  t.like(linesOf(expected)[1], { id: "001", text: "t1", expected: "b", note: more[1]?.note });
  const files = [
    file("a.ndjson", more.map((row) => JSON.stringify(row)).join("\n")),
    file("a.json", JSON.stringify(more, null, 2)),
    file("a.csv", csv(",")),
    file("b.csv", `\ufeff${csv(";")}`),
  ];
  for (const one of files) t.is((await predict("--data", one)).stdout, expected, one);
  const golden = fileURLToPath(new URL("../data/goldens/predict.parquet", import.meta.url));
  t.is((await predict("--data", golden)).stdout, expected);
  // CSV has no types: a label that is a whole number is one, as in a run's data.
  const numbered = await predict("--data", file("e.csv", "text,label\nt0,7\n"));
  t.is(linesOf(numbered.stdout)[0]?.["expected"], 7);
  const wrong = await predict("--data", file("c.csv", "id,Text\n1,a\n"));
  t.regex(wrong.stderr, /c\.csv:1: the column "text" is missing \(columns: id, Text\); rename "Text"/);
  t.regex(
    (await predict("--data", file("d.json", '[{"text":"a"},{"text":1}]'))).stderr,
    /d\.json: row 2: "text" must be/,
  );
});

test.serial("a large file is read in windows, with little of it in memory", async (t) => {
  const file = join(temporary(), "large.jsonl");
  const row = `${JSON.stringify({ id: 1, text: "some words of a text ".repeat(20) })}\n`;
  writeFileSync(file, row.repeat(200_000));
  const heap = (): number => {
    globalThis.gc?.();
    return process.memoryUsage().heapUsed;
  };
  const before = heap();
  let [rows, windows, most] = [0, 0, 0];
  const options = { least: 1024, signal: new AbortController().signal };
  for await (const window of streamWindows(await openSource(file), "jsonl", options)) {
    rows += window.length;
    if (windows++ % 20 === 0) most = Math.max(most, heap() - before);
  }
  t.is(rows, 200_000);
  t.true(most < 20e6, `${most} bytes of a file of ${row.length * 200_000}`);
});
