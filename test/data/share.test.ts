/** Files of lines that several processes read in parts. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import test from "ava";
import { HashedSource } from "../../src/data/source/hashed-source.js";
import { streamText } from "../../src/data/source/lines.js";
import { PIECE } from "../../src/data/source/pieces.js";
import {
  createShare,
  divideFile,
  type FileShare,
  hashSamples,
  ShareSource,
  surveyRange,
} from "../../src/data/source/share.js";
import { openSource } from "../../src/data/source/source.js";

const folder = mkdtempSync(join(tmpdir(), "lowrank-share-"));
test.after.always(() => rmSync(folder, { recursive: true }));

/** Returns text of at least `size` bytes, with lines of 0 to 2 PIECE bytes, some of them ended by CRLF. */
function writeLines(size: number, seed: number): string {
  let state = seed;
  const next = (limit: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % limit;
  };
  let text = "";
  while (text.length < size) {
    const length = next(40) === 0 ? next(2 * PIECE) : next(4) === 0 ? 0 : next(5000);
    text += `${"é0z"[next(3)]!.repeat(length)}${next(5) === 0 ? "\r" : ""}\n`;
  }
  return text;
}

function countLines(bytes: Buffer): number {
  let lines = 0;
  for (let at = bytes.indexOf(0x0a); at >= 0; at = bytes.indexOf(0x0a, at + 1)) lines++;
  return lines;
}

async function shareFile(path: string, size: number, parts: number): Promise<FileShare[]> {
  const surveys = await Promise.all(
    Array.from({ length: parts }, (_, part) => surveyRange(path, divideFile(size, part, parts), {})),
  );
  return surveys.map((_, part) => createShare(path, size, part, surveys));
}

const texts: Record<string, string> = {
  "lines of many lengths": writeLines(5.3 * PIECE, 1),
  "an unfinished last line": writeLines(3 * PIECE, 7).slice(0, -1),
  "a line end before and after each edge": `${"a".repeat(PIECE - 1)}\n\n${"b".repeat(PIECE - 2)}\n${"c".repeat(PIECE)}\n`,
  "one long line": "d".repeat(4 * PIECE + 1),
  "blank lines": "\n".repeat(2 * PIECE),
  "a few bytes": "one\ntwo",
};

for (const [name, text] of Object.entries(texts)) {
  test(`each line is in one share, with its number: ${name}`, async (t) => {
    const path = join(folder, `${name}.jsonl`);
    const bytes = Buffer.from(text);
    writeFileSync(path, bytes);
    const whole = new HashedSource(await openSource(path));
    for await (const _ of whole.read());
    for (const parts of [1, 2, 3, 7]) {
      const read: Uint8Array[] = [];
      for (const share of await shareFile(path, bytes.length, parts)) {
        const source = new ShareSource(share);
        t.is(source.sha256, whole.sha256);
        t.is(source.size, share.end - share.start);
        const before = Buffer.concat(read);
        let line = 1 + countLines(before);
        const own: Uint8Array[] = [];
        for await (const block of source.read()) own.push(block);
        if (own.length > 0) {
          t.is(source.position.offset, before.length);
          t.is(source.position.line, line);
          for await (const chunk of streamText(source, true)) {
            t.is(chunk.line, line);
            line += chunk.text.split("\n").length - 1;
          }
        }
        read.push(...own);
      }
      t.true(Buffer.concat(read).equals(bytes), `${parts} parts`);
    }
  });
}

test("a share reads its range, the byte before it, and the rest of its last line", async (t) => {
  const path = join(folder, "ranges.jsonl");
  const lines = Array.from({ length: 40 }, (_, i) => `${i}`.padEnd(100_000, "x")).join("\n");
  writeFileSync(path, lines);
  for (const share of await shareFile(path, lines.length, 4)) {
    let [read, last] = [0, 0];
    for await (const block of new ShareSource(share).read()) {
      read += block.length;
      last = block.length;
    }
    t.true(read + last <= share.end - share.start + 100_001 + (1 << 17));
  }
});

test("invalid text in a share is reported with its line and byte in the file", async (t) => {
  const path = join(folder, "invalid.jsonl");
  const bytes = Buffer.from(writeLines(4 * PIECE, 3));
  const at = bytes.indexOf("\n", 3 * PIECE) - 1;
  bytes[at] = 0xff;
  writeFileSync(path, bytes);
  const line = 1 + countLines(bytes.subarray(0, at));
  const errors: string[] = [];
  for (const share of await shareFile(path, bytes.length, 3))
    try {
      for await (const _ of streamText(new ShareSource(share), true));
    } catch (error) {
      errors.push((error as Error).message);
    }
  t.deepEqual(errors, [`${path}:${line}: invalid UTF-8 at byte ${at} (0xff); save it as UTF-8`]);
});

test("a share that was changed or cut off after the survey is an error", async (t) => {
  const path = join(folder, "changed.jsonl");
  const bytes = Buffer.from(writeLines(3 * PIECE, 5));
  writeFileSync(path, bytes);
  const [, share] = await shareFile(path, bytes.length, 2);
  const read = async (): Promise<void> => {
    for await (const _ of new ShareSource(share!).read());
  };
  await t.notThrowsAsync(read);
  const changed = Buffer.from(bytes);
  changed[share!.start + 3]! ^= 1;
  for (const other of [changed, bytes.subarray(0, share!.end - 1)]) {
    writeFileSync(path, other);
    await t.throwsAsync(read, { code: "ERR_DATA_ROW", message: /changed after it was checked/ });
  }
});

test("samples recognise files of the same size with other content", async (t) => {
  const [one, other] = [join(folder, "one.jsonl"), join(folder, "other.jsonl")];
  writeFileSync(one, "a".repeat(2 * PIECE));
  writeFileSync(other, "b".repeat(2 * PIECE));
  t.is(await hashSamples(one, 2 * PIECE), await hashSamples(one, 2 * PIECE));
  t.not(await hashSamples(one, 2 * PIECE), await hashSamples(other, 2 * PIECE));
});
