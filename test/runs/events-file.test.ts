/** events.jsonl as a file: whole lines or none, whatever happened to whoever wrote it. */
import { appendFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { AppendedFile } from "../../src/runs/appended-file.js";
import {
  eventLine,
  headerLine,
  linesOf,
  readHeader,
  type RecordedEvent,
} from "../../src/runs/events-file.js";
import { temporary } from "../hashed.js";

async function events(file: string, from?: number): Promise<(RecordedEvent | undefined)[]> {
  const found: (RecordedEvent | undefined)[] = [];
  for await (const { event } of linesOf(file, from)) found.push(event);
  return found;
}

const step = (n: number): Buffer => eventLine({ type: "step", step: n } as { type: string }, n);

test("what is torn at the end is left out, and is read once it is whole", async (t) => {
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

test("a damaged line is told from its neighbours, also one that is too long to hold", async (t) => {
  const file = join(temporary(), "events.jsonl");
  const long = `{"type":"step","at":1,"text":"${"é".repeat(2 ** 20)}"}\n`;
  const damaged = ["not json\n", "null\n", '{"at":1}\n', '{"type":"step"}\n', "\n", long];
  writeFileSync(file, [step(1), ...damaged, step(2)].join(""));
  t.deepEqual(
    (await events(file)).map((event) => event?.["step"]),
    [1, ...damaged.map(() => undefined), 2],
  );
});

test("lines over the borders of what is read at once are whole", async (t) => {
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

test("the header says whose a file is; one of somebody else is named", async (t) => {
  const folder = temporary();
  const file = join(folder, "events.jsonl");
  t.is(await readHeader(file), undefined);
  writeFileSync(file, headerLine([{ lineage: "a" }]));
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
    await t.throwsAsync(readHeader(file), { code: "ERR_FILE_FORMAT", message: /no run wrote it/ });
  }
  writeFileSync(file, '{"type":"events","at":1,"version":2,"line":[{"lineage":"a"}]}\n');
  await t.throwsAsync(readHeader(file), {
    code: "ERR_FILE_FORMAT",
    message: /is of version 2 of the format/,
  });
  mkdirSync(join(folder, "folder"));
  await t.throwsAsync(readHeader(join(folder, "folder")), { code: "ERR_FILE_FORMAT" });
});

test("what is appended is there in order, beside its place and then in it", async (t) => {
  const folder = temporary();
  const place = join(folder, "x");
  writeFileSync(place, "another's");
  const file = new AppendedFile(place, (error) => t.fail(error.message));
  await file.begin((write) => write(Buffer.from("a")));
  for (let n = 0; n < 500; n++) file.append(Buffer.from(`${n} `));
  await file.flush();
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

test("a disk that refuses it is told once, and nothing hangs", async (t) => {
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
