/** Refused files and rows: the messages, with the location. */
import { appendFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";

import type { Row, TrainingData } from "../../src/data/given.js";
import type { DataFormat } from "../../src/data/format.js";
import { readData, type LabelData, type RowData } from "../../src/data/read.js";
import { LowrankError } from "../../src/errors.js";
import { contentOf, folder, write } from "./sources.js";

const golden = (name: string): string => fileURLToPath(new URL(`goldens/${name}.parquet`, import.meta.url));

/** Returns the code and message of a reading error, without folders and file numbers. */
async function refusal(given: TrainingData, format?: DataFormat): Promise<string> {
  try {
    await readData(given, { format });
  } catch (error) {
    if (error instanceof LowrankError)
      return `${error.code} ${error.message.replaceAll(`${folder}/`, "").replaceAll(/\b\d+-(?=[a-z]+\.)/g, "")}`;
    throw error;
  }
  throw new Error("nothing was thrown");
}

const csv: [content: string, message: RegExp][] = [
  [
    "txet,label\na,b\n",
    /^ERR_DATA_ROW a\.csv:1: unknown column "txet" \(did you mean text\?\); rename it; expected audio and text/,
  ],
  [
    "good movie,1\nbad movie,0\n",
    /a\.csv:1: the first line has no name of a field \(it has "good movie", "1"\); if it is a row, put a header above it, such as text,label/,
  ],
  ["prompt\na\n", /a\.csv:1: the column "completion" is missing next to "prompt"; expected/],
  ["label\na\n", /a\.csv:1: the column "text" is missing next to "label"/],
  ["system\na\n", /a\.csv:1: no column contains texts \(columns: system\)/],
  ["text,text\na,b\n", /a\.csv:1: two columns are named "text"/],
  ["prompt;completion\na;b;c\n", /a\.csv:2: the row has 3 fields, but the header has 2; quote fields/],
  ['text,label\n"a\n\nb",x\nc\n', /a\.csv:5: the row has 1 fields, but the header has 2/],
  ['text,label\na,x\n"b,y\nc,z\n', /a\.csv:\d: a quoted field has no closing quote/],
  ['text,label\na "b,x\n', /a\.csv:2: a quote inside an unquoted field/],
  ['text,label\n"a"b,x\n', /a\.csv:2: text after a field's closing quote/],
  ['text,label\n"a\r\nb\r\n",x\nb,\n', /a\.csv:5: "label" is empty/],
  ["messages\nhello\n", /a\.csv:2: "messages" is not JSON; a CSV file holds a list as JSON text/],
  ["messages\n[{'role': 'user'}]\n", /a\.csv:2: "messages" is not JSON/],
  ["text\n", /^ERR_DATA_ROW a\.csv: the file has no rows/],
  ["", /a\.csv: the file is empty/],
];

const json: [content: string, message: RegExp][] = [
  ['[{"text":"a"},{"text":3}]', /^ERR_DATA_ROW a\.json: row 2: "text" must be a string, got a number/],
  ['[{"text":"a"},\n{"text":"b"', /a\.json: row 2: not JSON: the file ends within the array/],
  ['[{"text":"a"} {"text":"b"}]', /a\.json: row 2: not JSON: /],
  ['[{"text":"a"}] x', /a\.json: row 2: not JSON: Unexpected "x" at byte 15/],
  ['[{"text":"a"},]', /a\.json: row 2: not JSON: /],
  ["[]", /a\.json: the file has no rows/],
  ['["a"]', /a\.json: row 1: the row is a string; expected/],
  ["[[1]]", /a\.json: row 1: the row is an array/],
  [
    '{"data":[{"text":"a"}]}',
    /a\.json: row 1: the row's "data" is an array of objects; if those are the rows/,
  ],
  ['{"text":"a"}\n\n{"text":', /a\.json: row 2: not JSON: \{"text":/],
  [
    '"a"',
    /^ERR_FILE_FORMAT a\.json: begins with "; a \.json file holds an array of rows, or an object a line/,
  ],
  ['[{"text":"a\\ud83d"}]', /a\.json: row 1: "text" has half of a surrogate pair/],
  ['[{"text":"a"},{"text":"b"', /a\.json: row 2: not JSON/],
  ['[{"text":"a","label":1},{"text":"b"}]', /a\.json: row 2: the row has no "label", and row 1 has one/],
];

const jsonl: [content: string, message: RegExp][] = [
  [
    '[\n{"text":"a"}\n]',
    /^ERR_DATA_ROW a\.jsonl:1: the file begins with an array; .* give the data's format, json/,
  ],
  ['\n[{"text":"a"}]', /a\.jsonl:2: the file begins with an array/],
  ['{"text":"a"}\n[1]', /a\.jsonl:2: the row is an array; expected/],
  [
    '{"text":"a"},\n{"text":"b"}\n',
    /a\.jsonl:1: not JSON: \{"text":"a"\},; the line ends in a comma; remove the commas/,
  ],
  ['{"text":"a",\n"id":1}\n', /a\.jsonl:1: not JSON: \{"text":"a",; the object continues on the next line/],
];

for (const [name, cases] of [
  ["a.jsonl", jsonl],
  ["a.csv", csv],
  ["a.json", json],
] as const)
  test(`${name}: the error names the file and the line or row`, async (t) => {
    for (const [content, message] of cases) t.regex(await refusal(write(name, content)), message, content);
  });

test("a CSV row is named by its first line, and its values are kept unchanged", async (t) => {
  const data = (await readData(
    write("a.csv", 'text , label\n"a\r\n""b""\n",07\n\n c ,-3\nd,true\n'),
  )) as LabelData;
  t.deepEqual(await contentOf(data), [
    { kind: "label", line: 2, text: 'a\r\n"b"\n', label: "07" },
    { kind: "label", line: 6, text: " c ", label: -3 },
    { kind: "label", line: 7, text: "d", label: "true" },
  ]);
  const tools = (await readData(
    write("b.csv", 'messages,tools\n"[{""role"":""user"",""content"":""a""}]",\n'),
  )) as RowData;
  t.like((await contentOf(tools))[0], { kind: "chat", tools: undefined });
});

test("Parquet: the error names the file and the row", async (t) => {
  const whole = readFileSync(golden("completion"));
  const cut = write("a.parquet", whole.subarray(0, whole.length - 20));
  t.regex(await refusal(cut), /^ERR_FILE_FORMAT a\.parquet: not a Parquet file that can be read: /);
  t.regex(
    await refusal(write("a.parquet", '{"text":"a"}')),
    /^ERR_FILE_FORMAT a\.parquet: not a Parquet file/,
  );
  t.regex(await refusal(write("a.parquet", "")), /^ERR_\w+ a\.parquet: /);
  for (let at = 4; at < whole.length; at += 7) {
    const damaged = Buffer.from(whole);
    damaged[at] = (damaged[at] as number) ^ 0xff;
    const message = await refusal(write("a.parquet", damaged)).catch((error: Error) => error.message);
    t.regex(message, /^(ERR_\w+ a\.parquet: [^\n]*|nothing was thrown)$/, `byte ${at}`);
  }
  t.regex(await refusal(write("a.jsonl", whole)), /a\.jsonl: is a Parquet file; name it \.parquet/);
});

test("Parquet: columns that contradict the schema are refused before they are read", async (t) => {
  const bytes = readFileSync(golden("messages"));
  // The last path belongs to the metadata, after the schema. Both it and the content are damaged, so that reading
  // would fail.
  const path = bytes.lastIndexOf("element", bytes.lastIndexOf("content"));
  bytes[path] = "E".charCodeAt(0);
  bytes.fill(0xff, 170, 300);
  const unhandled: unknown[] = [];
  const listen = (error: unknown): void => void unhandled.push(error);
  process.on("unhandledRejection", listen);
  t.regex(
    await refusal(write("a.parquet", bytes)),
    /^ERR_FILE_FORMAT a\.parquet: not a Parquet file that can be read: the columns of group 1 do not match the schema/,
  );
  await new Promise((resolve) => setTimeout(resolve, 50));
  process.off("unhandledRejection", listen);
  t.deepEqual(unhandled, []);
});

test("Parquet: a null value is a missing field", async (t) => {
  const [first, second] = await contentOf(await readData(golden("mixed")));
  t.deepEqual(first, { kind: "text", line: 1, text: "The whale swam on, and the sea was wide." });
  t.like(second, { kind: "completion", line: 2, prompt: "Who keeps the lighthouse?" });
});

test("rows in memory: the error names the row's index", async (t) => {
  const cases: [rows: unknown[], message: RegExp][] = [
    [[], /^ERR_DATA_ROW data: there are no rows/],
    [[{ text: "a" }, { text: 3 }], /^ERR_DATA_ROW data\[1\]: "text" must be a string, got a number/],
    [[{ text: "a" }, "b"], /data\[1\]: the row must be an object such as \{ text: "…" \}, got "b"/],
    [[null], /data\[0\]: the row must be an object .*, got null/],
    [[{ words: "a" }], /data\[0\]: the field "text" is missing/],
    [[{ text: 5n }], /data\[0\]: the row cannot be written as JSON: /],
    [[{ text: "a", label: 1 }, { text: "b" }], /data\[1\]: the row has no "label", and data\[0\] has one/],
    [
      [{ messages: [{ role: "user", content: [{ type: "image" }] }] }],
      /data\[0\]: "messages"\[0\]\.content\[0\] is of type "image"/,
    ],
  ];
  async function* oneByOne(rows: unknown[]): AsyncGenerator<Row> {
    for (const row of rows) yield row as Row;
  }
  for (const [rows, message] of cases) {
    t.regex(await refusal(rows as Row[]), message);
    t.regex(await refusal(oneByOne(rows)), message);
  }
  const circular: { text: string; self?: object } = { text: "a" };
  circular.self = circular;
  t.regex(await refusal([circular as Row]), /data\[0\]: the row cannot be written as JSON: .*circular/i);
  const failing = async function* (): AsyncGenerator<Row> {
    yield { text: "a" };
    throw new TypeError("no more");
  };
  await t.throwsAsync(readData(failing()), { instanceOf: TypeError, message: "no more" });
  const missing = Object.assign(new Error("a file of the caller's"), { code: "ENOENT" });
  const reading = async function* (): AsyncGenerator<Row> {
    yield { text: "a" };
    throw missing;
  };
  t.is(await t.throwsAsync(readData(reading())), missing);
});

test("an iterable is closed when one of its rows is refused", async (t) => {
  let close = (): void => {};
  const closed = new Promise<void>((resolve) => (close = resolve));
  const rows = async function* (): AsyncGenerator<Row> {
    try {
      for (;;) yield { text: 3 } as unknown as Row;
    } finally {
      close();
    }
  };
  t.regex(await refusal(rows()), /data\[0\]/);
  await closed;
  t.pass();
});

test("data that changes after it was validated is refused", async (t) => {
  const rows = [{ text: "a" }, { text: "b" }];
  const array = await readData(rows);
  t.is((await contentOf(array)).length, 2);
  rows[1] = { text: "c" };
  await t.throwsAsync(contentOf(array), { code: "ERR_DATA_ROW", message: /^data: changed after it was che/ });

  const file = write("a.jsonl", '{"text":"a"}\n');
  const read = await readData(file);
  appendFileSync(file, '{"text":"b"}\n');
  await t.throwsAsync(contentOf(read), { code: "ERR_DATA_ROW", message: /a\.jsonl: changed after it was/ });
});

test("files of several kinds are refused with the names of two", async (t) => {
  const text = write("a.txt", "text");
  const [rows, labels] = [write("b.jsonl", '{"text":"a"}'), write("c.csv", "text,label\na,x\n")];
  t.regex(
    await refusal([rows, labels]),
    /^ERR_DATA_ROW c\.csv: contains rows with labels, but b\.jsonl contains rows for a language model; /,
  );
  t.regex(
    await refusal([text, rows]),
    /b\.jsonl: contains rows for a language model, but a\.txt contains running text/,
  );
  t.regex(
    await refusal([rows, join(folder, "none.jsonl")]),
    /^ERR_FILE_NOT_FOUND none\.jsonl: no such data file/,
  );
});

test("several files are read in sequence, and errors name each", async (t) => {
  const files = [write("a.csv", "text,label\na,x\nb,y\n"), write("b.jsonl", '{"text":"c","label":"x"}')];
  const data = (await readData(files)) as LabelData;
  t.is(data.count, 3);
  t.deepEqual(
    [...data.labels],
    [
      ["x", { rows: 2, first: `${files[0]}:2` }],
      ["y", { rows: 1, first: `${files[0]}:3` }],
    ],
  );
  t.deepEqual(
    (await contentOf(data)).map((row) => (row as { text: string }).text),
    ["a", "b", "c"],
  );
  t.is(data.file, `${files[0]} and 1 more`);
});
