import { execFile } from "node:child_process";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import fc from "fast-check";
import test from "ava";
import { closeData, type LabelData, readData } from "../../src/data/read.js";
import { findInvalidByte } from "../../src/data/source/utf8.js";
import { LowrankError, type ErrorCode } from "../../src/errors.js";
import { contentOf, folder, write } from "./sources.js";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Returns the error of reading a file of these bytes, without its folder. */
async function refusal(
  name: string,
  content: string | Uint8Array,
): Promise<{ code: ErrorCode; message: string }> {
  const file = write(name, content);
  try {
    await readData(file);
  } catch (error) {
    if (error instanceof LowrankError) return { code: error.code, message: error.message.replace(file, "f") };
    throw error;
  }
  throw new Error("nothing was thrown");
}

async function rowsIn(name: string, content: string | Uint8Array): Promise<object[]> {
  return (await contentOf(await readData(write(name, content)))) as object[];
}

async function textIn(content: string | Uint8Array): Promise<string> {
  return (await contentOf(await readData(write("a.txt", content)))).join("");
}

test("rows of both kinds, CRLF, blank lines, a byte order mark, and other fields", async (t) => {
  const text = '\ufeff{"text":"a"}\r\n\r\n  \n{"prompt":"p","completion":"c","id":7}\n{"text":"é\\n"}';
  t.deepEqual(await rowsIn("a.jsonl", text), [
    { kind: "text", line: 1, text: "a" },
    { kind: "completion", line: 4, prompt: "p", completion: "c", unused: ["id"] },
    { kind: "text", line: 5, text: "é\n" },
  ]);
});

test("an invalid row is named by file and line", async (t) => {
  const cases: [string, RegExp][] = [
    ['{"text":"a"}\n{"text":', /^f:2: not JSON/],
    ['{"text":"a"}\n\n[1]', /^f:3: the row is an array; expected/],
    ["null", /^f:1: the row is null/],
    ['{"words":"a"}', /^f:1: the field "text" is missing; expected/],
    ['{"prompt":"a"}', /^f:1: the field "completion" is missing/],
    ['{"completion":"a"}', /^f:1: the field "prompt" is missing/],
    ['{"text":3}', /^f:1: "text" must be a string, got a number/],
    ['{"text":"a","prompt":"b","completion":"c"}', /^f:1: the row has both "text" and/],
    [
      '{"instruction":"a","output":"b","text":"c"}',
      /^f:1: the row has both "text" and "instruction"; remove one; expected/,
    ],
    ['{"conversations":[],"text":"c"}', /^f:1: the row has both "conversations" and "text"/],
    [
      '{"conversations":[],"prompt":"a","completion":"b"}',
      /^f:1: the row has both "conversations" and "prompt"/,
    ],
    ['{"conversations":[],"messages":[]}', /^f:1: the row has both "messages" and "conversations"/],
    ['{"messages":[]}', /^f:1: "messages" is empty; a conversation has at least one message/],
    ['{"messages":{}}', /^f:1: "messages" must be an array of messages, got an object/],
    ['{"messages":[1]}', /^f:1: "messages"\[0\] must be an object, got a number/],
    ['{"messages":[{"content":"a"}]}', /^f:1: "messages"\[0\]\.role must be a string, got nothing/],
    [
      '{"text":"a"}\n{"messages":[{"role":"user","content":"a"},{"role":"bot","content":"b"}]}',
      /^f:2: "messages"\[1\]\.role is "bot"; roles are system, developer, user, assistant, tool/,
    ],
    ['{"messages":[{"role":"user"}]}', /^f:1: "messages"\[0\]\.content must be a string or .*, got nothing/],
    ['{"messages":[{"role":"user","content":3}]}', /^f:1: "messages"\[0\]\.content must .*, got a number/],
    [
      '{"messages":[{"role":"assistant","tool_calls":{}}]}',
      /^f:1: "messages"\[0\]\.tool_calls must be an array/,
    ],
    [
      '{"messages":[{"role":"user","content":"a\\ud83d"}]}',
      /^f:1: "messages"\[0\] has half of a surrogate pair, \\ud83d/,
    ],
    ['{"messages":[{"role":"user","content":"a"}],"tools":"[}"}', /^f:1: "tools" must be JSON/],
    ['{"messages":[{"role":"user","content":"a"}],"tools":[1]}', /^f:1: "tools" must be an array of objects/],
    ['{"messages":[],"prompt":"a","completion":"b"}', /^f:1: the row has both "messages" and/],
    [
      '{"conversations":[{"from":"alien","value":"a"}]}',
      /^f:1: "conversations"\[0\]\.from is "alien"; speakers are human/,
    ],
    [
      '{"conversations":[{"from":"human"}]}',
      /^f:1: "conversations"\[0\]\.value must be a string, got nothing/,
    ],
    ['{"instruction":"a"}', /^f:1: the field "output" is missing next to "instruction"/],
    ['{"instruction":"a","output":1}', /^f:1: "output" must be a string, got a number/],
    ['{"text":"a","label":1.5}', /^f:1: "label" must be a string or a whole number, got 1\.5/],
    ['{"text":"a","label":null}', /^f:1: "label" must be a string or a whole number, got null/],
    ['{"text":"a","label":true}', /^f:1: "label" must be .*, got a boolean/],
    ['{"text":"a","label":""}', /^f:1: "label" is empty/],
    ['{"label":"x"}', /^f:1: the field "text" is missing/],
    ['{"text":"a","label":1}\n\n{"text":"b"}', /^f:3: the row has no "label", and line 1 has one/],
    ['{"text":"a"}\n{"text":"b","label":1}', /^f:2: the row has a "label", and line 1 has none/],
    ['{"prompt":"a","completion":"b"}\n{"text":"b","label":1}', /^f:2: the row has a "label"/],
    ["\n \n", /^f: the file has no rows/],
    [
      '{"text":"a"}\n{"text":"ab\\ud83d"}',
      /^f:2: "text" has half of a surrogate pair, \\ud83d, at character 3;/,
    ],
    [
      '{"prompt":"\\udc00","completion":"a"}',
      /^f:1: "prompt" has half of a surrogate pair, \\udc00, at character 1/,
    ],
    ['{"text":"a","label":"\\ude00\\ud83d"}', /^f:1: "label" has half of a surrogate pair, \\ude00/],
  ];
  for (const [text, message] of cases) {
    const error = await refusal("a.jsonl", text);
    t.is(error.code, "ERR_DATA_ROW", text);
    t.regex(error.message, message);
    t.notRegex(error.message, /\n/);
  }
});

test("messages, and the formats of ShareGPT and Alpaca", async (t) => {
  const turns = (...pairs: [string, string][]) => pairs.map(([role, content]) => ({ role, content }));
  const tools = [{ name: "t" }];
  const rows: [row: object, read: object][] = [
    [
      { messages: [{ role: "user", content: "a", name: null }], tools },
      { format: "messages", messages: turns(["user", "a"]), tools },
    ],
    [
      { messages: turns(["user", "a"]), tools: JSON.stringify(tools) },
      { format: "messages", messages: turns(["user", "a"]), tools },
    ],
    [
      { messages: [{ role: "assistant", content: null, tool_calls: [{}] }], tools: null },
      { format: "messages", messages: [{ role: "assistant", tool_calls: [{}] }], tools: undefined },
    ],
    [
      {
        system: "s",
        conversations: [
          { from: "human", value: "a" },
          { from: "gpt", value: "b" },
        ],
      },
      {
        format: "sharegpt",
        messages: turns(["system", "s"], ["user", "a"], ["assistant", "b"]),
        tools: undefined,
      },
    ],
    [
      { conversations: turns(["user", "a"], ["assistant", "b"]) },
      { format: "messages", messages: turns(["user", "a"], ["assistant", "b"]), tools: undefined },
    ],
    [
      { instruction: "a", input: "", output: "b" },
      { format: "alpaca", messages: turns(["user", "a"], ["assistant", "b"]) },
    ],
    [
      { instruction: "a", input: "x", output: "b" },
      { format: "alpaca", messages: turns(["user", "a\n\nx"], ["assistant", "b"]) },
    ],
  ];
  for (const [row, read] of rows)
    t.deepEqual(await rowsIn("a.jsonl", JSON.stringify(row)), [{ kind: "chat", line: 1, ...read } as never]);
});

test("both halves of a surrogate pair are one character", async (t) => {
  t.deepEqual(await rowsIn("a.jsonl", '{"text":"\\ud83d\\ude00"}'), [{ kind: "text", line: 1, text: "😀" }]);
});

test("invalid UTF-8 is named by line and byte", async (t) => {
  const bad = Uint8Array.of(...bytes('{"text":"é"}\n{"text":"'), 0xff, ...bytes('"}'));
  const rows = await refusal("a.jsonl", bad);
  t.is(rows.code, "ERR_FILE_FORMAT");
  t.regex(rows.message, /^f:2: invalid UTF-8 at byte 23 \(0xff\)/);
  const text = await refusal("a.txt", Uint8Array.of(0xef, 0xbb, 0xbf, 0x61, 0x0a, 0xc3));
  t.regex(text.message, /^f:2: invalid UTF-8 at byte 5 \(0xc3\)/);
  t.regex((await refusal("a.txt", Uint8Array.of(0xff, 0xfe, 0x61, 0))).message, /UTF-16/);
});

test("a binary file is refused with its actual format", async (t) => {
  const cases: [string, Uint8Array, RegExp][] = [
    [
      "a.txt",
      Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0),
      /^f: is compressed by gzip; unpack it first/,
    ],
    ["a.jsonl", Uint8Array.of(0x1f, 0x8b), /^f: is compressed by gzip/],
    ["a.txt", Uint8Array.of(0x50, 0x4b, 3, 4, 0, 0, 0, 0), /^f: is a zip archive/],
    ["a.txt", bytes("PAR1\u0015\u0004\u0015"), /^f: is a Parquet file/],
    ["a.txt", bytes("one\ntwo\0three"), /^f:2: a NUL byte at byte 7; text has none/],
    ["a.txt", bytes("\ufeffone\ntwo\0three"), /^f:2: a NUL byte at byte 10;/],
    ["a.jsonl", bytes('{"text":"a"}\n{"text":"\0"}'), /^f:2: a NUL byte at byte 22;/],
  ];
  for (const [name, content, message] of cases) {
    const error = await refusal(name, content);
    t.is(error.code, "ERR_FILE_FORMAT");
    t.regex(error.message, message);
  }
});

test("the search for an invalid byte agrees with the decoder", (t) => {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const lead = fc.constantFrom(
    0x61,
    0xc2,
    0xe0,
    0xed,
    0xef,
    0xf0,
    0xf4,
    0x80,
    0x9f,
    0xa0,
    0xbf,
    0x90,
    0x8f,
    0xf5,
  );
  const piece = fc.oneof(fc.uint8Array({ maxLength: 6 }), fc.array(lead, { maxLength: 6 }), fc.string());
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 5 }), (pieces) => {
      const all = Uint8Array.from(pieces.flatMap((p) => (typeof p === "string" ? [...bytes(p)] : [...p])));
      const at = findInvalidByte(all);
      if (at < 0) decoder.decode(all);
      else t.throws(() => decoder.decode(all.subarray(0, Math.min(at + 4, all.length))));
      if (at >= 0) t.notThrows(() => decoder.decode(all.subarray(0, at)));
    }),
  );
});

test("a text file loses its byte order mark and its carriage returns", async (t) => {
  t.is(await textIn("\ufeffa\r\nb\rc\n"), "a\nb\rc\n");
  t.is(await textIn("a\r"), "a\r");
  t.is((await refusal("a.txt", " \n")).code, "ERR_DATA_ROW");
});

test("a file is read in parts, and nothing is lost between them", async (t) => {
  // Characters of 1 to 4 bytes and line ends occur at every position relative to a block's end.
  const line = "aé漢🙂 the cat sat on the mat\r\n";
  for (const shift of [0, 1, 2, 3, 4, 5]) {
    const text = "x".repeat(shift) + line.repeat(60_000);
    t.true((await textIn(text)) === text.replaceAll("\r\n", "\n"));
  }
  const rows = Array.from({ length: 40_000 }, (_, i) => JSON.stringify({ text: `${i} ${line}` }));
  const read = await rowsIn("a.jsonl", rows.join("\n"));
  t.is(read.length, rows.length);
  for (const [i, row] of read.entries()) {
    if (i % 977 === 0) t.deepEqual(row, { kind: "text", line: i + 1, text: `${i} ${line}` });
  }
  const long = { kind: "text", line: 2, text: line.repeat(100_000) };
  t.deepEqual(await rowsIn("a.jsonl", `{"text":"a"}\n${JSON.stringify({ text: long.text })}\n{"text":"b"}`), [
    { kind: "text", line: 1, text: "a" },
    long,
    { kind: "text", line: 3, text: "b" },
  ]);
  const late = await refusal("a.jsonl", `${rows.join("\n")}\n{"text":3}`);
  t.regex(late.message, /^f:40001: "text" must be a string/);
});

test("files: by name, missing, empty, a folder, another kind", async (t) => {
  t.like(await readData(write("a.txt", "text")), { kind: "text" });
  t.like(await readData(write("a.JSONL", '{"text":"a"}')), { kind: "rows", count: 1 });
  t.like(await readData(write("a.log", '{"text":"a"}'), { format: "jsonl" }), { kind: "rows" });
  const labels = (await readData(
    write("b.jsonl", '{"text":"a","label":"x"}\n{"text":"b","label":3}\n{"text":"c","label":"x"}'),
  )) as LabelData;
  t.is(labels.kind, "labels");
  t.deepEqual(
    [...labels.labels],
    [
      ["x", { rows: 2, first: `${labels.file}:1` }],
      [3, { rows: 1, first: `${labels.file}:2` }],
    ],
  );
  const locked = write("locked.txt", "text");
  chmodSync(locked, 0);
  mkdirSync(join(folder, "folder.txt"));
  const cases: [string, ErrorCode, RegExp][] = [
    [join(folder, "absent.txt"), "ERR_FILE_NOT_FOUND", /absent\.txt: no such data file/],
    [write("empty.txt", ""), "ERR_DATA_ROW", /empty\.txt: the file is empty/],
    [write("empty.jsonl", ""), "ERR_DATA_ROW", /the file is empty/],
    [join(folder, "folder.txt"), "ERR_FILE_FORMAT", /is a folder/],
    [
      write("a.doc", "x"),
      "ERR_FILE_FORMAT",
      /the name ends in \.doc, .* txt, jsonl, ndjson, json, csv or parquet/,
    ],
    [write("README", "x"), "ERR_FILE_FORMAT", /the name has no ending/],
    ["-", "ERR_OPTION", /give the data's format/],
    // The superuser can read any file.
    ...(process.getuid?.() === 0 ? [] : ([[locked, "ERR_FILE_FORMAT", /no permission/]] as const)),
  ] as [string, ErrorCode, RegExp][];
  for (const [file, code, message] of cases) {
    const error = await t.throwsAsync(readData(file), { instanceOf: LowrankError, message });
    t.is(error.code, code);
  }
});

if (process.platform !== "win32") {
  test("a named pipe is read once, and its rows any number of times", async (t) => {
    const pipe = join(folder, "pipe");
    await promisify(execFile)("mkfifo", [pipe]);
    const writing = new Promise<void>((resolve) => {
      const source = write("source.jsonl", '{"text":"a"}\n{"text":"b"}\n');
      execFile("sh", ["-c", 'cat "$0" > "$1"', source, pipe], () => resolve());
    });
    const data = await readData(pipe, { format: "jsonl" });
    await writing;
    t.like(data, { kind: "rows", count: 2 });
    for (let round = 0; round < 2; round++) t.is((await contentOf(data)).length, 2);
    closeData(data);
    const empty = join(folder, "empty-pipe");
    await promisify(execFile)("mkfifo", [empty]);
    execFile("sh", ["-c", ': > "$0"', empty]);
    await t.throwsAsync(readData(empty, { format: "txt" }), { message: /is empty/ });
  });
}

test("an abort ends reading at once", async (t) => {
  const file = join(folder, "long.txt");
  writeFileSync(file, "the cat sat on the mat\n".repeat(200_000));
  const controller = new AbortController();
  const reason = new Error("enough");
  const reading = readData(file, {
    signal: controller.signal,
    onProgress: () => controller.abort(reason),
  });
  await t.throwsAsync(reading, { is: reason });
});
