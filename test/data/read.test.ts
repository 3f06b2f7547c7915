import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import test from "ava";
import { parseJsonl } from "../../src/data/rows.js";
import { parseText, readData } from "../../src/data/read.js";
import { firstInvalidByte } from "../../src/data/utf8.js";
import { LowrankError, type ErrorCode } from "../../src/errors.js";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const folder = mkdtempSync(join(tmpdir(), "lowrank-data-"));

function write(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

function thrown(run: () => unknown): { code: ErrorCode; message: string } {
  try {
    run();
  } catch (error) {
    if (error instanceof LowrankError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

test("rows of both kinds, CRLF, blank lines, a byte order mark, and other fields", (t) => {
  const text = '\ufeff{"text":"a"}\r\n\r\n  \n{"prompt":"p","completion":"c","id":7}\n{"text":"é\\n"}';
  t.deepEqual(parseJsonl(bytes(text), "f"), [
    { kind: "text", line: 1, text: "a" },
    { kind: "completion", line: 4, prompt: "p", completion: "c" },
    { kind: "text", line: 5, text: "é\n" },
  ]);
});

test("a bad row is named by file and line", (t) => {
  const cases: [string, RegExp][] = [
    ['{"text":"a"}\n{"text":', /^f:2: not JSON/],
    ['{"text":"a"}\n\n[1]', /^f:3: the row is an array; expected/],
    ["null", /^f:1: the row is null/],
    ['{"words":"a"}', /^f:1: the field "text" is missing; expected/],
    ['{"prompt":"a"}', /^f:1: the field "completion" is missing/],
    ['{"completion":"a"}', /^f:1: the field "prompt" is missing/],
    ['{"text":3}', /^f:1: "text" must be a string and is a number/],
    ['{"text":"a","prompt":"b","completion":"c"}', /^f:1: the row has "text" beside/],
    ['{"messages":[]}', /^f:1: rows of "messages" are not supported/],
    ['{"text":"a","label":1.5}', /^f:1: "label" must be a string or a whole number and is 1\.5/],
    ['{"text":"a","label":null}', /^f:1: "label" must be a string or a whole number and is null/],
    ['{"text":"a","label":true}', /^f:1: "label" must be .* is a boolean/],
    ['{"text":"a","label":""}', /^f:1: "label" is empty/],
    ['{"label":"x"}', /^f:1: the field "text" is missing/],
    ['{"text":"a","label":1}\n\n{"text":"b"}', /^f:3: the row has no "label", and line 1 has one/],
    ['{"text":"a"}\n{"text":"b","label":1}', /^f:2: the row has a "label", and line 1 has none/],
    ['{"prompt":"a","completion":"b"}\n{"text":"b","label":1}', /^f:2: the row has a "label"/],
    ["\n \n", /^f: the file has no rows/],
  ];
  for (const [text, message] of cases) {
    const error = thrown(() => parseJsonl(bytes(text), "f"));
    t.is(error.code, "ERR_DATA_ROW", text);
    t.regex(error.message, message);
    t.notRegex(error.message, /\n/);
  }
});

test("invalid UTF-8 is named by line and byte", (t) => {
  const bad = Uint8Array.of(...bytes('{"text":"é"}\n{"text":"'), 0xff, ...bytes('"}'));
  const rows = thrown(() => parseJsonl(bad, "f"));
  t.is(rows.code, "ERR_FILE_FORMAT");
  t.regex(rows.message, /^f:2: invalid UTF-8 at byte 23 \(0xff\)/);
  const text = thrown(() => parseText(Uint8Array.of(0xef, 0xbb, 0xbf, 0x61, 0x0a, 0xc3), "f"));
  t.regex(text.message, /^f:2: invalid UTF-8 at byte 5 \(0xc3\)/);
  t.regex(thrown(() => parseText(Uint8Array.of(0xff, 0xfe, 0x61, 0), "f")).message, /UTF-16/);
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
      const at = firstInvalidByte(all);
      if (at < 0) decoder.decode(all);
      else t.throws(() => decoder.decode(all.subarray(0, Math.min(at + 4, all.length))));
      if (at >= 0) t.notThrows(() => decoder.decode(all.subarray(0, at)));
    }),
  );
});

test("a text file loses its byte order mark and its carriage returns", (t) => {
  t.is(parseText(bytes("\ufeffa\r\nb\rc\n"), "f"), "a\nb\rc\n");
  t.is(thrown(() => parseText(bytes(" \n"), "f")).code, "ERR_DATA_ROW");
});

test("files: by name, missing, empty, a folder, another kind", async (t) => {
  t.like(await readData(write("a.txt", "text")), { kind: "text", text: "text" });
  t.like(await readData(write("a.JSONL", '{"text":"a"}')), { kind: "rows" });
  t.like(await readData(write("b.jsonl", '{"text":"a","label":"x"}\n{"text":"b","label":3}')), {
    kind: "labels",
    rows: [
      { kind: "label", line: 1, text: "a", label: "x" },
      { kind: "label", line: 2, text: "b", label: 3 },
    ],
  });
  const cases: [string, ErrorCode, RegExp][] = [
    [join(folder, "absent.txt"), "ERR_FILE_NOT_FOUND", /absent\.txt: no such data file/],
    [write("empty.txt", ""), "ERR_DATA_ROW", /empty\.txt: the file is empty/],
    [write("empty.jsonl", ""), "ERR_DATA_ROW", /the file is empty/],
    [folder, "ERR_FILE_FORMAT", /is a folder/],
    [write("a.csv", "x"), "ERR_FILE_FORMAT", /ends in \.txt or \.jsonl/],
  ];
  for (const [file, code, message] of cases) {
    const error = await t.throwsAsync(readData(file), { instanceOf: LowrankError, message });
    t.is(error.code, code);
  }
});
