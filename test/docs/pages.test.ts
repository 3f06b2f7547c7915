/** The pages of docs/ are correct: each code block is run, written or compared, and links have targets. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";

// In this process, since packing takes longer than these tests.
import "./from-loralib.js";
import { blocksOf, difference, stepsOf } from "./page.js";
import { placeOf, standIns, type StandIns } from "./place.js";
import { runPage } from "./run-page.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const pages = readdirSync(join(root, "docs")).filter((name) => name.endsWith(".md"));
const textOf = (page: string): string => readFileSync(join(root, "docs", page), "utf8");
/** Tested separately, from an empty folder. */
const START = "start.md";

let ready: StandIns;
test.before(async () => {
  ready = await standIns();
});
test.after.always(() => ready.hub.close());

for (const page of pages.filter((name) => name !== START && stepsOf(name, textOf(name)).length > 0)) {
  test(`docs/${page} is correct`, async (t) => {
    t.timeout(600_000);
    await t.notThrowsAsync(runPage(`docs/${page}`, textOf(page), placeOf(ready)));
  });
}

/** The README's blocks belong to separate projects. */
const README = readFileSync(join(root, "README.md"), "utf8");
const blocks = blocksOf("README.md", README).filter(({ language }) => language !== "");
for (const block of blocks.filter(({ text }) => text !== "npm start\n")) {
  test(`README.md:${block.line} is correct`, async (t) => {
    t.timeout(600_000);
    const fence = "```";
    const alone = `${fence}${block.language}\n${block.text}${fence}`;
    await t.notThrowsAsync(runPage(`README.md, block of line ${block.line}`, alone, placeOf(ready)));
  });
}

test("a block that belongs to no step is an error", (t) => {
  const fence = "```";
  const page = (block: string): string => `# A page\n\n${fence}${block}\n${fence}\n`;
  t.is(stepsOf("a.md", page("sh\nls")).length, 1);
  for (const [block, message] of [
    ["\nls", /^a\.md:3: nothing is done with a block of ""/],
    ["console\n$ ls", /"console"/],
    ["ts no-run/x\n1", /"no-run\/x" is no name/],
    ["js\n1", /"js"/],
    ["text\n1", /what is printed stands behind/],
    ["python\n1", /in front of the ts/],
  ] as const)
    t.throws(() => stepsOf("a.md", page(block)), { message }, block);
  t.throws(() => stepsOf("a.md", `${fence}sh\nls\n`), { message: "a.md:1: the block has no end" });
});

test("a command that runs until Ctrl-C gets it after its first output, and must end by it", async (t) => {
  const serve = "require('http').createServer().listen(0, () => console.log('serves'))";
  const block = (program: string, shown: string): string =>
    `\`\`\`sh\nnode -e "${program}"   # until Ctrl-C\necho after\n\`\`\`\n\n\`\`\`text\n${shown}\n\`\`\`\n`;
  const handler = "process.on('SIGINT', () => process.exit(130)); ";
  await t.notThrowsAsync(runPage("a.md", block(handler + serve, "serves\nafter"), placeOf(ready)));
  await t.throwsAsync(runPage("a.md", block(handler + serve, "serves"), placeOf(ready)), {
    message: /a\.md:6: shown/,
  });
  await t.throwsAsync(runPage("a.md", block("process.exit(3)", "serves"), placeOf(ready)), {
    message: /a\.md:1: status/,
  });
});

test("output is compared line by line, and … matches varying parts", (t) => {
  const same = (shown: string, printed: string): boolean => difference(shown, printed) === undefined;
  t.true(same("a b\n", "a b  \n\n"));
  t.true(same("loss 0.…", "\u001b[2mloss 0.25\u001b[22m"));
  t.true(same("a\n…\nz", "a\nb\nc\nz") && same("a\n…\nz", "a\nz") && same("…", "") && same("…\nz", "a\nz"));
  t.true(same("1 … (2)", "1 x (2)"));
  for (const [shown, printed] of [
    ["a", "a\nb"],
    ["a\nb", "a"],
    ["a…c", "a\nc"],
    ["1 … (2)", "1 x (3)"],
    [".", "x"],
    ["…\nz", "z\na"],
  ] as const)
    t.false(same(shown, printed), `${shown} ${printed}`);
});

test("docs/errors.md has each code once, and no other", (t) => {
  const codes = [...readFileSync(join(root, "src/errors.ts"), "utf8").matchAll(/\| "(ERR_\w+)"/g)].map(
    ([, c]) => c,
  );
  const rows = [...textOf("errors.md").matchAll(/^\| `(ERR_\w+)`/gm)].map(([, c]) => c);
  t.true(codes.length > 20);
  t.deepEqual(rows.toSorted(), codes.toSorted());
});
