/** The selections of `npm test` and `npm run test:quick` name files that exist. */
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

import test from "ava";

import { EXHAUSTIVE, GPU_SAMPLE, QUICK } from "../../scripts/test-selection.mjs";

/** Returns the names that a pattern with at most one list in braces stands for. */
function expand(pattern: string): string[] {
  const [, before, list, after] = /^(.*)\{(.*)\}(.*)$/.exec(pattern) ?? [];
  return list === undefined ? [pattern] : list.split(",").map((name) => `${before}${name}${after}`);
}

test("each name in a selection matches a file of tests", (t) => {
  const folder = fileURLToPath(new URL("..", import.meta.url));
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).map((name) => `test/${name}`);
  const names = [...EXHAUSTIVE, ...GPU_SAMPLE.ava, ...QUICK].flatMap(expand);
  const matches = (name: string, file: string): boolean => {
    const [folderOf, rest] = name.split("*");
    return rest === undefined ? file === name : file.startsWith(folderOf ?? "") && file.endsWith(rest);
  };
  t.deepEqual(
    names.filter((name) => !files.some((file) => matches(name, file))),
    [],
  );
});
