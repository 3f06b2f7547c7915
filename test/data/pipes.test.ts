/** Data that arrives in parts: pipes that stay open, and endless rows. */
import { execFile, spawn } from "node:child_process";
import { join } from "node:path";
import { Readable } from "node:stream";
import { promisify } from "node:util";

import test from "ava";

import type { Row } from "../../src/data/given.js";
import { readData } from "../../src/data/read.js";
import { Stream } from "../../src/data/source/source.js";
import { folder } from "./sources.js";

/** Creates a named pipe that has `content` and stays open. */
async function openPipe(name: string, content: string): Promise<{ pipe: string; close: () => void }> {
  const pipe = join(folder, name);
  await promisify(execFile)("mkfifo", [pipe]);
  const writer = spawn("sh", ["-c", 'exec > "$0"; printf "$1"; exec sleep 300', pipe, content]);
  return { pipe, close: () => void writer.kill() };
}

// Windows has no mkfifo.
if (process.platform !== "win32") {
  test("CSV: an invalid row of an open pipe is reported at once", async (t) => {
    const { pipe, close } = await openPipe("wrong", "text,label\\na,b\\nc\\nd,e\\n");
    t.timeout(60_000);
    await t.throwsAsync(readData(pipe, { format: "csv" }), {
      message: /:3: the row has 1 fields, but the header has 2/,
    });
    close();
  });

  test("CSV: an abort ends reading from an open pipe", async (t) => {
    const { pipe, close } = await openPipe("idle", "text,label\\na,b\\n");
    t.timeout(60_000);
    const controller = new AbortController();
    const reason = new Error("enough");
    setTimeout(() => controller.abort(reason), 500);
    await t.throwsAsync(readData(pipe, { format: "csv", signal: controller.signal }), { is: reason });
    close();
  });
}

test("a stream ends in an error before the disk is full", async (t) => {
  const chunk = Buffer.alloc(1 << 20, "a\n");
  let [given, closed] = [0, false];
  function* endless(): Generator<Buffer> {
    try {
      for (;;) {
        given += chunk.length;
        yield chunk;
      }
    } finally {
      closed = true;
    }
  }
  const total = 2 ** 40;
  const space = () => Promise.resolve({ free: 2 ** 30 + (80 << 20) - given, total });
  const stream = new Stream(
    "data",
    () => Readable.from(endless()),
    (_, cause) => cause,
    space,
  );
  const read = async (): Promise<void> => {
    for await (const _ of stream.read());
  };
  const message =
    /^data: \S+ has too little space to buffer it \(\d+ bytes so far\); rows must end even if few steps are needed; set TMPDIR/;
  await t.throwsAsync(read(), { code: "ERR_WRITE", message });
  t.true(given < 128 << 20);
  t.true(closed);
});

test("rows of an iterable are read to the end, without being kept in memory", async (t) => {
  let ended = false;
  async function* rows(): AsyncGenerator<Row> {
    for (let i = 0; i < 1000; i++) yield { text: `row ${i}` };
    ended = true;
  }
  const data = await readData(rows());
  t.true(ended);
  t.like(data, { count: 1000 });
});
