/** The pages of docs/ say what holds: their code runs as it stands, and the page of errors has each code. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import test from "ava";

import { temporary } from "../hashed.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const pages = readdirSync(join(root, "docs")).filter((name) => name.endsWith(".md"));

/** The TypeScript of a page, in its order: later blocks go on with what earlier ones declared. */
function code(page: string): string {
  const text = readFileSync(join(root, "docs", page), "utf8");
  return [...text.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, block]) => block).join("\n");
}

for (const page of pages.filter((name) => code(name) !== "")) {
  test(`the code of docs/${page} runs`, (t) => {
    const folder = temporary();
    const source = (path: string): string => `from "${pathToFileURL(join(root, path)).href}"`;
    const here = code(page)
      .replaceAll('from "lowrank"', source("src/index.ts"))
      .replaceAll('from "lowrank/electron"', source("src/electron/index.ts"));
    writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
    writeFileSync(join(folder, "page.ts"), here);
    const loader = pathToFileURL(join(root, "node_modules/tsx/dist/loader.mjs")).href;
    const run = spawnSync(process.execPath, [`--import=${loader}`, "page.ts"], {
      cwd: folder,
      encoding: "utf8",
    });
    t.is(run.status, 0, run.stderr);
  });
}

test("what docs/electron.md shows of the example stands in it", (t) => {
  const folder = join(root, "examples/electron");
  const files = readdirSync(folder).map((name) => readFileSync(join(folder, name), "utf8"));
  const bare = (text: string): string => text.replace(/\s+/g, " ");
  const text = readFileSync(join(root, "docs/electron.md"), "utf8");
  const shown = [...text.matchAll(/^```js\n(.*?)^```$/gms)].map(([, block]) => bare(block as string));
  t.is(shown.length, 3);
  for (const block of shown)
    t.true(
      files.some((file) => bare(file).includes(block.trim())),
      block,
    );
});

test("docs/errors.md has each code once, and no other", (t) => {
  const codes = [...readFileSync(join(root, "src/errors.ts"), "utf8").matchAll(/\| "(ERR_\w+)"/g)].map(
    ([, c]) => c,
  );
  const rows = [...readFileSync(join(root, "docs/errors.md"), "utf8").matchAll(/^\| `(ERR_\w+)`/gm)].map(
    ([, c]) => c,
  );
  t.true(codes.length > 20);
  t.deepEqual(rows.toSorted(), codes.toSorted());
});

test("links between the pages lead somewhere", (t) => {
  for (const page of pages) {
    const text = readFileSync(join(root, "docs", page), "utf8");
    for (const [, to] of text.matchAll(/\]\(([\w./-]+\.md)(?:#[\w-]*)?\)/g))
      t.true(pages.includes(to as string), `${page}: ${to}`);
  }
});
