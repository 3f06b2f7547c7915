/** Parquet page by page: rows that continue across pages, damaged files, and metadata that do not match the rows. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import test from "ava";

import { LowrankError } from "../../src/errors.js";
import { checkRuns } from "../../src/data/formats/parquet/encodings.js";
import { checkHeader } from "../../src/data/formats/parquet/page.js";
import { readData } from "../../src/data/read.js";
import { contentOf, write } from "./sources.js";

const golden = (name: string): string => fileURLToPath(new URL(`goldens/${name}.parquet`, import.meta.url));
const rows = JSON.parse(
  readFileSync(fileURLToPath(new URL("goldens/rows.json", import.meta.url)), "utf8"),
) as Record<"completion" | "messages", Record<string, unknown>[]>;

/** Returns the content of a damaged file as JSON; undefined if it is refused by one clear error. */
async function contentIfRead(bytes: Uint8Array): Promise<string | undefined> {
  try {
    return JSON.stringify(await contentOf(await readData(write("a.parquet", bytes))));
  } catch (error) {
    if (error instanceof LowrankError && /^\S+a\.parquet: [^\n]*$/.test(error.message)) return undefined;
    throw error;
  }
}

for (const name of ["pages", "pages-v2"])
  test(`${name}: conversations that continue from page to page are read completely`, async (t) => {
    const turns = rows.messages.flatMap(({ messages }) => messages as object[]);
    const content = await contentOf(await readData(golden(name)));
    t.is(content.length, 40);
    for (const [i, row] of content.entries()) {
      const messages = Array.from({ length: (i % 7) + 1 }, (_, k) => turns[(i + k) % turns.length]);
      t.like(row, { kind: "chat", line: i + 1, messages }, `row ${i + 1}`);
    }
  });

test("delta-encoded texts, compressed by lz4", async (t) => {
  const content = await contentOf(await readData(golden("pages-lz4")));
  t.deepEqual(
    content,
    rows.completion.map((row, i) => ({ kind: "completion", line: i + 1, ...row }) as never),
  );
});

test("a damaged page of brotli ends in an error", async (t) => {
  const bytes = readFileSync(golden("labels"));
  // The decoder in hyparquet-compressors never returns for this byte.
  bytes[86] = (bytes[86] as number) ^ 0x10;
  const error = await t.throwsAsync(readData(write("a.parquet", bytes)), { instanceOf: LowrankError });
  t.regex(error?.message ?? "", /a\.parquet: not a Parquet file that can be read: [^\n]+$/);
});

for (const name of ["completion", "labels"])
  test(`${name}: no changed byte of the metadata loses or adds a row`, async (t) => {
    const whole = readFileSync(golden(name));
    const count = (await contentOf(await readData(golden(name)))).length;
    const footer = whole.length - 8 - whole.readUInt32LE(whole.length - 8);
    let refused = 0;
    for (let at = footer; at < whole.length - 8; at++) {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] as number) ^ 2;
      const read = await contentIfRead(bytes);
      if (read === undefined) refused++;
      else t.is((JSON.parse(read) as unknown[]).length, count, `byte ${at}`);
    }
    t.true(refused > 50);
  });

test("a page with a checksum is refused if one of its bytes differs", async (t) => {
  const whole = readFileSync(golden("pages-v2"));
  const expected = (await contentIfRead(whole)) as string;
  const footer = whole.length - 8 - whole.readUInt32LE(whole.length - 8);
  for (let at = 4; at < footer; at += 31) {
    const bytes = Buffer.from(whole);
    bytes[at] = (bytes[at] as number) ^ 0x20;
    const read = await contentIfRead(bytes);
    // Parts of a header, such as its statistics, are not used.
    if (read !== undefined) t.is(read, expected, `byte ${at}`);
  }
});

test("a page of lz4 that ends early is refused, instead of padded with zeros", async (t) => {
  const whole = readFileSync(golden("pages-lz4"));
  const footer = whole.length - 8 - whole.readUInt32LE(whole.length - 8);
  for (let at = 4; at < footer; at++) {
    const bytes = Buffer.from(whole);
    bytes[at] = (bytes[at] as number) ^ 0x10;
    const read = await contentIfRead(bytes);
    if (read !== undefined) t.false(read.includes("\\u0000\\u0000\\u0000"), `byte ${at}`);
  }
});

test("a run of more values than its page has is refused before it is expanded", (t) => {
  t.notThrows(() => checkRuns(Uint8Array.of(16, 1), 0, 2, 1, 8));
  // A run of 2²⁷ values.
  const run = Uint8Array.of(0x80, 0x80, 0x80, 0x80, 0x01, 1);
  t.throws(() => checkRuns(run, 0, run.length, 1, 8), { message: /a run of values is damaged/ });
  t.throws(() => checkRuns(Uint8Array.of(0, 1, 0, 1), 0, 4, 1, 8), { message: /a run of values is damaged/ });
});

test("a page that is too large is refused before it is unpacked, with the remedy", (t) => {
  const page = { type: "DATA_PAGE", compressed_page_size: 100, uncompressed_page_size: 300 << 20 } as const;
  t.throws(() => checkHeader(page, 100), {
    message: /a page of 300 MiB, and a page has at most 256 MiB; .*data_page_size/,
  });
  t.throws(() => checkHeader({ ...page, uncompressed_page_size: 100 }, 99), { message: /beyond the end/ });
  t.throws(() => checkHeader({ ...page, uncompressed_page_size: -1 }, 100), { message: /beyond the end/ });
});
