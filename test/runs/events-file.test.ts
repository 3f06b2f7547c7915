/** events.jsonl as a file: complete lines or none, even if its writer was interrupted. */
import { appendFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { setTimeout as later } from "node:timers/promises";

import test from "ava";

import { AppendedFile } from "../../src/runs/appended-file.js";
import {
  formatEvent,
  formatHeader,
  readLines,
  readHeader,
  type RecordedEvent,
} from "../../src/runs/events-file.js";
import { RunReader } from "../../src/runs/summary.js";
import { temporary } from "../hashed.js";
import { NOON, started, stepped, writeRun } from "./written.js";

const upTo = (last: number): number[] => Array.from({ length: last }, (_, i) => i + 1);

async function events(file: string, from?: number): Promise<(RecordedEvent | undefined)[]> {
  const found: (RecordedEvent | undefined)[] = [];
  for await (const { event } of readLines(file, from)) found.push(event);
  return found;
}

const step = (n: number): Buffer => formatEvent({ type: "step", step: n } as { type: string }, n);

test("an incomplete last line is skipped, and is read once it is complete", async (t) => {
  const file = join(temporary(), "events.jsonl");
  const whole = step(3).toString();
  for (let cut = 0; cut < whole.length; cut++) {
    writeFileSync(file, Buffer.concat([step(1), step(2), Buffer.from(whole.slice(0, cut))]));
    t.deepEqual(
      (await events(file)).map((event) => event?.["step"]),
      [1, 2],
      whole.slice(0, cut),
    );
  }
  const from = readFileSync(file).length - whole.length + 1;
  appendFileSync(file, whole.at(-1) as string);
  t.deepEqual(await events(file, from), [{ type: "step", at: 3, step: 3 }]);
});

test("damaged lines do not affect their neighbours, even lines too long for memory", async (t) => {
  const file = join(temporary(), "events.jsonl");
  const long = `{"type":"step","at":1,"text":"${"é".repeat(2 ** 20)}"}\n`;
  const damaged = ["not json\n", "null\n", '{"at":1}\n', '{"type":"step"}\n', "\n", long];
  writeFileSync(file, [step(1), ...damaged, step(2)].join(""));
  t.deepEqual(
    (await events(file)).map((event) => event?.["step"]),
    [1, ...damaged.map(() => undefined), 2],
  );
  t.deepEqual(
    (await events(file)).map((event) => event === undefined),
    [false, ...damaged.map(() => true), false],
  );
  let held = 0;
  for await (const { bytes } of readLines(file)) held += bytes.length;
  t.true(held < 1000, `${held} bytes`);
});

if (process.platform !== "win32") {
  test("a pipe of that name is refused without waiting", async (t) => {
    const file = join(temporary(), "events.jsonl");
    t.is(spawnSync("mkfifo", [file]).status, 0);
    const read = readHeader(file).catch((error: { code: string }) => error.code);
    t.is(await Promise.race([read, later(5000, "waits")]), "ERR_FILE_FORMAT");
  });
}

test("a file that was truncated or replaced is read from its beginning", async (t) => {
  const file = writeRun(temporary(), [started(9), stepped(1, 9), stepped(2, 9), stepped(3, 9)]);
  const reader = new RunReader(file, "a");
  t.like(await reader.read(), { step: 3, steps: 9 });
  const whole = readFileSync(file, "utf8").split("\n");
  writeFileSync(file, `${whole.slice(0, 3).join("\n")}\n`);
  t.like(await reader.read(), { step: 1, steps: 9 });
  writeRun(join(file, ".."), [started(7), ...upTo(5).map((n) => stepped(n, 7))], { lineage: "0123456789ac" });
  t.like(await reader.read(), { step: 5, steps: 7 });
  // Longer than the earlier file, and of another run.
  writeRun(join(file, ".."), [started(8), ...upTo(6).map((n) => stepped(n, 8)), started(8)], {
    at: NOON + 1,
  });
  t.like(await reader.read(), { step: 6, steps: 8, started: NOON + 1 });
});

test("lines across the borders of read blocks are complete", async (t) => {
  const file = join(temporary(), "events.jsonl");
  const line = (n: number): string =>
    `${JSON.stringify({ type: "warning", at: n, message: "ü".repeat(n) })}\n`;
  const sizes = [0, 1, 30_000, 32_700, 32_768, 40_000, 200_000, 3];
  writeFileSync(file, sizes.map(line).join(""));
  t.deepEqual(
    (await events(file)).map((event) => ((event as RecordedEvent)["message"] as string).length),
    sizes,
  );
});

test("the header names the run of a file; a foreign file is named", async (t) => {
  const folder = temporary();
  const file = join(folder, "events.jsonl");
  t.is(await readHeader(file), undefined);
  writeFileSync(file, formatHeader([{ lineage: "a" }]));
  t.deepEqual((await readHeader(file))?.line, [{ lineage: "a" }]);
  for (const text of [
    "",
    "{}\n",
    '{"type":"step","at":1}\n',
    "my notes\n",
    '{"type":"events","at":1,"line":[]}\n',
    '{"type":"events","at":1,"version":1,"line":[null]}\n',
  ]) {
    writeFileSync(file, text);
    await t.throwsAsync(readHeader(file), { code: "ERR_FILE_FORMAT", message: /not written by a run/ });
  }
  writeFileSync(file, '{"type":"events","at":1,"version":2,"line":[{"lineage":"a"}]}\n');
  await t.throwsAsync(readHeader(file), {
    code: "ERR_FILE_FORMAT",
    message: /has version 2 of the format/,
  });
  mkdirSync(join(folder, "folder"));
  await t.throwsAsync(readHeader(join(folder, "folder")), { code: "ERR_FILE_FORMAT" });
});

test("appended data is in its sequence, first in a staging file and then in place", async (t) => {
  const folder = temporary();
  const place = join(folder, "x");
  writeFileSync(place, "another's");
  const file = new AppendedFile(place, (error) => t.fail(error.message));
  await file.begin((write) => write(Buffer.from("a")));
  for (let n = 0; n < 500; n++) file.append(Buffer.from(`${n} `));
  await file.flush();
  t.is(readFileSync(file.path, "utf8"), `a${Array.from({ length: 500 }, (_, n) => `${n} `).join("")}`);
  t.is(readFileSync(place, "utf8"), "another's");
  await file.moveIntoPlace();
  await file.moveIntoPlace();
  file.append(Buffer.from("end"));
  await file.close();
  t.is(readFileSync(place, "utf8"), `a${Array.from({ length: 500 }, (_, n) => `${n} `).join("")}end`);
  t.deepEqual(readdirSync(folder), ["x"]);
  await file.discard();
  t.deepEqual(readdirSync(folder), []);
});

test("a write error is reported once, and nothing hangs", async (t) => {
  const failures: string[] = [];
  const full = new AppendedFile(join(temporary(), "no", "such", "folder"), ({ code }) =>
    failures.push(String(code)),
  );
  await full.begin((write) => write(Buffer.from("a")));
  full.append(Buffer.from("b"));
  await full.moveIntoPlace();
  await full.close();
  await full.discard();
  t.deepEqual(failures, ["ENOENT"]);
});

test("at most 16 MiB wait for the disk, and an overflow is reported once", async (t) => {
  const failures: string[] = [];
  const file = new AppendedFile(join(temporary(), "x"), ({ code }) => failures.push(String(code)));
  await file.begin(async () => {});
  for (let n = 0; n < 20; n++) file.append(Buffer.alloc(2 ** 20));
  t.deepEqual(failures, ["ETIMEDOUT"]);
  await file.close();
  t.deepEqual(failures, ["ETIMEDOUT"]);
});
