/** The site that `npm run docs` generates has every page, and its checks find problems. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";

import { problems } from "../../scripts/docs/check.mjs";
import { temporary } from "../hashed.js";

const root = fileURLToPath(new URL("../../", import.meta.url));

test("the index links each page and each example once", (t) => {
  const index = readFileSync(join(root, "docs/index.md"), "utf8");
  const linked = [...index.matchAll(/\]\(([^)]+)\)/g)].map(([, to]) => join("docs", to as string));
  const pages = readdirSync(join(root, "docs")).filter((name) => name.endsWith(".md") && name !== "index.md");
  const examples = readdirSync(join(root, "examples")).map((name) => join("examples", name, "README.md"));
  t.deepEqual(linked.toSorted(), [...pages.map((name) => join("docs", name)), ...examples].toSorted());
});

/** Creates a site with these pages. */
function site(pages: Record<string, string>): string {
  const folder = temporary();
  for (const [name, html] of Object.entries(pages)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), html);
  }
  return folder;
}

test("links without a target, missing anchors, and resources loaded from elsewhere are found", (t) => {
  const good = {
    "index.html": '<a href="pages/a.html#one">a</a><a href="#top" id="top">b</a><link rel="x" href="a.css"/>',
    "pages/a.html": '<h2 id="one">a</h2><a href="../index.html">a</a><a href="https://example.org">b</a>',
    "a.css": "",
  };
  t.deepEqual(problems(site(good)), []);
  for (const [html, line] of [
    ['<a href="b.html">', "index.html: b.html is not there"],
    ['<a class="x" href="pages">', "index.html: pages is not there"],
    ['<a href="pages/a.html#two">', "index.html: pages/a.html#two has no such anchor"],
    ['<a href="#one">', "index.html: #one has no such anchor"],
    ['<img alt="" src="b.png"/>', "index.html: b.png is not there"],
    ['<script async src="https://example.org/a.js">', "index.html: <script> loads https://example.org/a.js"],
    ['<link href="//example.org/a.css">', "index.html: <link> loads //example.org/a.css"],
  ] as const)
    t.deepEqual(problems(site({ ...good, "index.html": html })), [line]);
});
