/** The prose check of `npm run lint`. */
import test from "ava";

import { findPhrases } from "../../scripts/prose/find.mjs";

const find = (path: string, text: string): string[] =>
  findPhrases(path, () => text).map(({ line, text: phrase }) => `${line}: ${phrase}`);

test("phrases are found in comments, pages and titles of tests, with their lines", (t) => {
  t.deepEqual(find("a.ts", "/** Returns one.\n * It moves to and fro. */"), ["2: to and fro"]);
  t.deepEqual(find("a.rs", "let a = 1; // To and fro.\n/// As usual for the rest."), [
    "1: To and fro",
    "2: for the rest",
  ]);
  t.deepEqual(find("a.mjs", "// It moves to and fro\ncall();"), ["1: to and fro"]);
  t.deepEqual(find("a.test.ts", 'test("a run that moves to and fro", f);'), ["1: to and fro"]);
  t.deepEqual(find("a.md", "# Title\n\nIt moves to and fro.\n"), ["3: to and fro"]);
});

test("code, code in pages, and files without prose are left out", (t) => {
  t.deepEqual(find("a.ts", 'const words = "to and fro";'), []);
  t.deepEqual(find("a.md", "```\nto and fro\n```\nA file `to and fro`."), []);
  t.deepEqual(find("a.json", '{"a": "to and fro"}'), []);
});
