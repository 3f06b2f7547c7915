/** Electron for tests: the pinned package, with the fuses that Electron ships. */
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { check, setFuses } from "../../scripts/electron/electron.mjs";
import { temporary } from "../hashed.js";

const SENTINEL = "dL7pKGdnNz796PbbjQWNKmHXBZaB9tsX";

/** Creates an executable with `count` fuses of a version, all of them unset. */
function executable(version: number, count: number): string {
  const path = join(temporary(), "electron");
  writeFileSync(
    path,
    Buffer.concat([Buffer.from(`code${SENTINEL}`), Buffer.from([version, count]), Buffer.alloc(16, "0")]),
  );
  return path;
}

test("fuses are set to Electron's defaults, and nothing else is changed", (t) => {
  const path = executable(1, 8);
  setFuses(path);
  const bytes = readFileSync(path).subarray(4 + SENTINEL.length);
  t.deepEqual([...bytes.subarray(0, 2)], [1, 8]);
  t.is(bytes.subarray(2).toString(), "1011000100000000");
});

test("an executable with unknown fuses is refused", (t) => {
  t.throws(() => setFuses(executable(2, 8)), { message: /8 fuses of version 2; expected 8 of version 1/ });
  t.throws(() => setFuses(executable(1, 12)), { message: /12 fuses/ });
  const path = join(temporary(), "electron");
  writeFileSync(path, "no fuses");
  t.throws(() => setFuses(path), { message: /has no fuses/ });
});

test("a package of other bytes is refused", (t) => {
  const path = join(temporary(), "package.tgz");
  writeFileSync(path, "bytes");
  const sha512 = createHash("sha512").update("bytes").digest("base64");
  const source = { package: "electron@1", bytes: 5, sha512 };
  t.notThrows(() => check(path, source));
  t.throws(() => check(path, { ...source, bytes: 6 }), { message: /has 5 bytes; expected 6/ });
  t.throws(() => check(path, { ...source, sha512: "other" }), {
    message: /has the SHA-512 .*; expected other/,
  });
});
