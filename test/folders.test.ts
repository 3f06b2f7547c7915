/** Folders that take one another's place. */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import test from "ava";

import { replaceFolder } from "../src/folders.js";

async function inFolder(run: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "lowrank-folders-"));
  try {
    await run(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function filled(folder: string, name: string): Promise<string> {
  const path = join(folder, name);
  await mkdir(path);
  await writeFile(join(path, `${name}.txt`), name);
  return path;
}

test("a folder takes another's place, or that of none", async (t) => {
  await inFolder(async (folder) => {
    await replaceFolder(await filled(folder, "first"), join(folder, "place"));
    await replaceFolder(await filled(folder, "second"), join(folder, "place"));
    t.deepEqual(await readdir(folder), ["place"]);
    t.deepEqual(await readdir(join(folder, "place")), ["second.txt"]);
  });
});

test("what cannot take a folder's place leaves it as it was", async (t) => {
  await inFolder(async (folder) => {
    const place = await filled(folder, "place");
    await t.throwsAsync(replaceFolder(join(folder, "none"), place), { code: "ENOENT" });
    t.deepEqual(await readdir(folder), ["place"]);
    t.is(await readFile(join(place, "place.txt"), "utf8"), "place");
  });
});
