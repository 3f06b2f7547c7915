// `npm run lint` runs this: finds phrases that are hard to read in comments, pages and titles of tests.
// Prints each with its file, its line and a remedy, and exits with status 1 if there are any.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { findPhrases } from "./find.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const { status, stdout, stderr } = spawnSync("git", ["ls-files", "-z"], { cwd: root, encoding: "utf8" });
if (status !== 0) throw new Error(`git ls-files: ${stderr}`);

// The list of phrases and its test quote them.
const files = stdout.split("\0").filter((path) => !/^scripts\/prose\/|^test\/scripts\/prose/.test(path));
let found = 0;
for (const path of files) {
  for (const { line, text, remedy } of findPhrases(path, () => readFileSync(join(root, path), "utf8"))) {
    console.error(`${path}:${line}: "${text}"; write ${remedy}`);
    found++;
  }
}
process.exitCode = found > 0 ? 1 : 0;
