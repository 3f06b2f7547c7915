/** The prose check of `npm run lint`. */
import test from "ava";

import { findPhrases } from "../../scripts/prose/find.mjs";

const find = (path: string, text: string): string[] =>
  findPhrases(path, () => text).map(({ line, text: phrase }) => `${line}: ${phrase}`);

test("phrases are found in comments, pages and titles of tests, with their lines", (t) => {
  t.deepEqual(find("a.ts", "/** Returns one.\n * The state is that of a run. */"), ["2: that of"]);
  t.deepEqual(find("a.rs", "let a = 1; // Goes on.\n/// The type, by whose size it is read."), [
    "1: Goes on",
    "2: by whose",
  ]);
  t.deepEqual(find("a.mjs", "// It goes on\ncall();"), ["1: goes on"]);
  t.deepEqual(find("a.test.ts", 'test("a run that was kept to a size", f);'), ["1: kept to"]);
  t.deepEqual(find("a.md", "# Title\n\nNobody; hence.\n"), ["3: hence", "3: Nobody"]);
});

test("code, code in pages, and files without prose are left out", (t) => {
  t.deepEqual(find("a.ts", 'const hence = "goes on";'), []);
  t.deepEqual(find("a.md", "```\nit goes on\n```\nA file `anew`."), []);
  t.deepEqual(find("a.json", '{"a": "goes on"}'), []);
});
