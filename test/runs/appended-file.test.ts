/** A file that is appended to during a run. */
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as later } from "node:timers/promises";

import test from "ava";

import { AppendedFile } from "../../src/runs/appended-file.js";
import { temporary } from "../hashed.js";

async function begun(t: { fail: (message: string) => void }, place: string): Promise<AppendedFile> {
  const file = new AppendedFile(place, ({ message }) => t.fail(message));
  await file.begin((write) => write(Buffer.from("begin\n")));
  return file;
}

test("appends within a tenth of a second are one write, in their sequence, and none is missing at the end", async (t) => {
  const file = await begun(t, join(temporary(), "events.jsonl"));
  const began = performance.now();
  const sizes = new Set<number>();
  for (let line = 0; line < 150; line++) {
    file.append(Buffer.from(`${line}\n`));
    await later(2);
    sizes.add(statSync(file.path).size);
  }
  const writes = Math.floor((performance.now() - began) / 100) + 1;
  // Includes the size before the first write.
  t.true(sizes.size <= writes + 1, `${sizes.size} sizes where ${writes} writes would do`);
  t.true(sizes.size > 1, "nothing was written meanwhile");
  await file.moveIntoPlace();
  file.append(Buffer.from("after\n"));
  await file.close();
  const lines = Array.from({ length: 150 }, (_, line) => `${line}\n`).join("");
  t.is(readFileSync(file.path, "utf8"), `begin\n${lines}after\n`);
});

test("appended data is in the file once flush resolves", async (t) => {
  const place = join(temporary(), "events.jsonl");
  const file = await begun(t, place);
  for (let line = 0; line < 30; line++) {
    file.append(Buffer.from(`${line}\n`));
    await file.flush();
    t.true(readFileSync(file.path, "utf8").endsWith(`${line}\n`));
  }
  await file.discard();
  t.false(existsSync(file.path) || existsSync(place));
});
