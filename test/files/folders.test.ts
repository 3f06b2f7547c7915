/** Replacing folders. */
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";

import test from "ava";

import { releaseMappings, replaceFolder } from "../../src/files/folders.js";
import { LowrankError, memory, safetensors, tensor, type Tensor } from "../../src/index.js";
import { atRest } from "../at-rest.js";

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

test("a folder replaces another one, or is moved to a free path", async (t) => {
  await inFolder(async (folder) => {
    await replaceFolder(await filled(folder, "first"), join(folder, "place"));
    await replaceFolder(await filled(folder, "second"), join(folder, "place"));
    t.deepEqual(await readdir(folder), ["place"]);
    t.deepEqual(await readdir(join(folder, "place")), ["second.txt"]);
  });
});

test("a missing replacement leaves the folder unchanged", async (t) => {
  await inFolder(async (folder) => {
    const place = await filled(folder, "place");
    await t.throwsAsync(replaceFolder(join(folder, "none"), place), { code: "ENOENT" });
    t.deepEqual(await readdir(folder), ["place"]);
    t.is(await readFile(join(place, "place.txt"), "utf8"), "place");
  });
});

test("if a folder's weights cannot be removed, it and its replacement stay", async (t) => {
  await inFolder(async (folder) => {
    const place = await filled(folder, "place");
    await writeFile(join(place, "model.safetensors"), "old");
    const other = await filled(folder, "other");
    const stay = async (file: string): Promise<void> => {
      throw new LowrankError("ERR_WRITE", `${file}: cannot be removed`);
    };
    await t.throwsAsync(replaceFolder(other, place, stay), {
      code: "ERR_WRITE",
      message: `${join(place, "model.safetensors")}: cannot be removed`,
    });
    t.deepEqual((await readdir(folder)).sort(), ["other", "place"]);
    t.deepEqual((await readdir(place)).sort(), ["model.safetensors", "place.txt"]);
    t.deepEqual(await readdir(other), ["other.txt"]);
    await replaceFolder(other, place);
    t.deepEqual(await readdir(place), ["other.txt"]);
    t.deepEqual(await readdir(folder), ["place"]);
  });
});

test("a leftover folder of an earlier process with the same id is no obstacle", async (t) => {
  await inFolder(async (folder) => {
    const place = await filled(folder, "place");
    const left = `place.old-${process.pid}`;
    await filled(folder, left);
    await replaceFolder(await filled(folder, "new"), place);
    t.deepEqual((await readdir(folder)).sort(), ["place", left]);
    t.deepEqual(await readdir(place), ["new.txt"]);
  });
});

const VALUES = Float32Array.from({ length: 4096 }, (_, i) => i / 7);

async function withWeights(folder: string): Promise<string> {
  const path = join(folder, "weights.safetensors");
  const w = tensor(VALUES, { device: "cpu" });
  await safetensors.save(path, { w });
  w.dispose();
  return path;
}

/**
 * Renames like Windows, which refuses mapped files. On Linux mapped files are refused here, too; elsewhere they
 * cannot be detected.
 */
function strictly(from: string, to: string, tries: { count: number }): () => Promise<void> {
  return async () => {
    tries.count++;
    const maps = process.platform === "linux" ? await readFile("/proc/self/maps", "utf8") : "";
    if (maps.split("\n").some((line) => line.endsWith(from) || line.includes(`${from}/`)))
      throw Object.assign(new Error("EPERM: operation not permitted"), { code: "EPERM" });
    await rename(from, to);
  };
}

test.serial(
  "a mapped file that cannot be renamed is unmapped, and its tensors keep their values",
  async (t) => {
    await inFolder(async (folder) => {
      const path = await withWeights(folder);
      const { w } = (await safetensors.load(path, { device: "cpu" })) as { w: Tensor };
      const before = await atRest("cpu");
      t.is(before.mapped, VALUES.byteLength);
      const tries = { count: 0 };
      const moved = join(folder, "moved");
      await releaseMappings([path, moved], strictly(path, moved, tries));
      if (process.platform === "linux") {
        t.is(tries.count, 2);
        const after = memory("cpu");
        t.deepEqual([after.mapped, after.live - before.live], [0, VALUES.byteLength]);
      }
      t.deepEqual(await w.data(), VALUES);
      t.deepEqual(await readdir(folder), ["moved"]);
      w.dispose();
      t.is(memory("cpu").live, before.live);
    });
  },
);

test.serial("a folder's files are unmapped by all environments of the process", async (t) => {
  await inFolder(async (folder) => {
    const place = join(folder, "place");
    await mkdir(place);
    const path = await withWeights(place);
    const worker = new Worker(new URL("mapping-worker.mjs", import.meta.url), { workerData: path });
    try {
      await once(worker, "message");
      const tries = { count: 0 };
      await releaseMappings([place], strictly(place, join(folder, "moved"), tries));
      if (process.platform === "linux") t.is(tries.count, 2);
      // A thread has no origin.
      // eslint-disable-next-line unicorn/require-post-message-target-origin
      worker.postMessage("read");
      const [read] = (await once(worker, "message")) as [Float32Array];
      t.deepEqual(read, VALUES);
      await once(worker, "exit");
    } finally {
      await worker.terminate();
    }
  });
});

test("other refusals are reported without another attempt", async (t) => {
  await inFolder(async (folder) => {
    const path = await filled(folder, "x");
    let tries = 0;
    const refuse = (code: string) => async (): Promise<void> => {
      tries++;
      throw Object.assign(new Error(`${code}: no`), { code });
    };
    for (const code of ["EPERM", "EBUSY", "EACCES"]) {
      const error = await t.throwsAsync(releaseMappings([path, join(folder, "none")], refuse(code)), {
        code: "ERR_WRITE",
      });
      t.is(
        error?.message,
        `${path}: cannot be moved, replaced or removed: permission is missing, or another program uses it or a file ` +
          `in it; close that, or choose another folder (${code}: no)`,
      );
    }
    await t.throwsAsync(releaseMappings([path], refuse("ENOSPC")), { code: "ENOSPC" });
    t.is(tries, 4);
  });
});
