/** Knowledge about GPUs: stored results, and hazards. */
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { runsAsNode } from "../../src/self-test/electron-fuse.js";
import { keep, readKept, type Owner } from "../../src/self-test/cache.js";
import { HAZARDS, listHazards, type Adapter } from "../../src/self-test/hazards.js";
import { describe, parseLines } from "../../src/self-test/steps.js";
import { temporary } from "../hashed.js";

const owner: Owner = { adapter: "Some GPU / 3", backend: "Vulkan", driver: "1.2", package: "0.1.0" };

test.serial("a result is stored by adapter, interface, driver and version", (t) => {
  process.env["XDG_CACHE_HOME"] = temporary();
  t.is(readKept(owner), undefined);
  keep(owner, { passed: false, full: true, reason: "wrong" });
  t.deepEqual(readKept(owner), { passed: false, full: true, reason: "wrong" });
  keep(owner, { passed: true, full: false });
  t.deepEqual(readKept(owner), { passed: true, full: false, reason: undefined });
  keep(owner, { passed: false, full: false, reason: "hung", until: Date.now() - 1 });
  t.is(readKept(owner), undefined, "it counts no longer");
  keep(owner, { passed: false, full: false, reason: "hung", until: Date.now() + 60_000 });
  t.like(readKept(owner), { passed: false, reason: "hung" });
  for (const part of ["adapter", "backend", "driver", "package"] as const)
    t.is(readKept({ ...owner, [part]: "another" }), undefined, part);
});

test.serial("a damaged file is ignored, and a folder that cannot be created is no error", (t) => {
  const cache = temporary();
  process.env["XDG_CACHE_HOME"] = cache;
  keep(owner, { passed: true, full: false });
  const folder = join(cache, "lowrank", "self-test");
  const [name] = readdirSync(folder) as [string];
  for (const text of [
    "",
    "{",
    "null",
    "[]",
    '{"format":1}',
    '{"format":2,"of":{},"passed":true}',
    "x".repeat(1 << 17),
  ]) {
    writeFileSync(join(folder, name), text);
    t.is(readKept(owner), undefined, text.slice(0, 20));
  }
  const file = join(temporary(), "file");
  writeFileSync(file, "");
  process.env["XDG_CACHE_HOME"] = file;
  keep(owner, { passed: true, full: false });
  t.is(readKept(owner), undefined);
  mkdirSync(join(folder, "x"), { recursive: true });
});

test("each hazard has sources and applies to some GPU; a GPU in software has none", (t) => {
  const adapter = (given: Partial<Adapter>): Adapter => ({
    name: "GPU",
    backend: "Vulkan",
    driver: "driver 1",
    vendor: 0,
    platform: "linux",
    ...given,
  });
  const known = [
    adapter({ backend: "Metal", platform: "darwin" }),
    adapter({ backend: "DX12 (FXC)", platform: "win32" }),
    adapter({
      vendor: 0x8086,
      name: "Intel(R) Graphics (PTL)",
      driver: "Intel open-source Mesa driver 25.2",
    }),
    adapter({ vendor: 0x1002, platform: "win32" }),
    adapter({ vendor: 0x1002 }),
    adapter({ vendor: 0x5143, name: "Adreno (TM) 740" }),
  ];
  const found = new Set(known.flatMap((one) => listHazards(one).map(({ id }) => id)));
  t.deepEqual([...found].sort(), HAZARDS.map(({ id }) => id).sort());
  for (const { id, source, what } of HAZARDS) {
    for (const one of source.split(", ")) t.regex(one, /^https:\/\/[\w./-]+$/, id);
    t.true(what.length > 20);
  }
  t.deepEqual(listHazards(adapter({ vendor: 0x10005, name: "llvmpipe", driver: "llvmpipe Mesa 25" })), []);
  // An older Intel GPU, or one with another driver.
  const older = listHazards(adapter({ vendor: 0x8086, name: "Arc A770", driver: "Mesa 25" }));
  t.deepEqual(
    older.map(({ id }) => id),
    ["intel-matrices"],
  );
});

test("a process's lines are distinguished from a driver's output", (t) => {
  const text = 'MESA: warning\n{"event":"done"}\n{"event":"begin","name":"x\n{"event":';
  t.deepEqual(parseLines(text), [{ event: "done" }]);
  const result = { name: "flip", family: "flip", milliseconds: 1 } as const;
  t.is(describe({ ...result, status: "crashed", reason: "SIGSEGV" }), "flip ended the process: SIGSEGV");
  t.is(describe({ ...result, status: "failed", reason: "no" }), "flip failed: no");
});

test("the fuse RunAsNode is read from an executable, at any offset", (t) => {
  const file = join(temporary(), "electron");
  const sentinel = "dL7pKGdnNz796PbbjQWNKmHXBZaB9tsX";
  for (const before of [0, 100, (8 << 20) - 10, (8 << 20) + 33])
    for (const [fuse, runs] of [
      ["1", true],
      ["0", false],
    ] as const) {
      writeFileSync(
        file,
        Buffer.concat([Buffer.alloc(before, 1), Buffer.from(`${sentinel}\x01\x08${fuse}1010101`)]),
      );
      t.is(runsAsNode(file), runs, `${before} ${fuse}`);
    }
  writeFileSync(file, "no fuses");
  t.true(runsAsNode(file));
});
