/** docs/refused.md agrees with the errors in the code, and each of its rows is thrown somewhere. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";
import { format } from "prettier";

import { refusedPage, SECTIONS } from "../../scripts/refused/page.js";
import { LowrankError } from "../../src/index.js";
import { explain, createRefusal } from "../../src/refusals/refusal.js";

const root = fileURLToPath(new URL("../../", import.meta.url));

test("docs/refused.md is generated from the code: npm run refused writes it", async (t) => {
  const page = join(root, "docs/refused.md");
  t.is(readFileSync(page, "utf8"), await format(refusedPage(), { filepath: page }));
});

test("each row is thrown somewhere, and all rows differ", (t) => {
  const files = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" }).filter(
    (name) => name.endsWith(".ts") && !/(^|[\\/])(refusals[\\/]|refusals\.ts)/.test(name),
  );
  const code = files.map((name) => readFileSync(join(root, "src", name), "utf8")).join("\n");
  const rows = SECTIONS.flatMap(({ title, refusals }) =>
    Object.entries(refusals).map(([key, refusal]) => ({ key, gguf: title === "GGUF", ...refusal })),
  );
  t.true(rows.length > 70, String(rows.length));
  for (const { key, gguf } of rows) {
    const uses = gguf ? new RegExp(`"${key}"`) : new RegExp(`_REFUSALS\\.${key}\\b`);
    t.regex(code, uses, key);
  }
  const told = rows.map(({ what, where }) => `${what} ${where}`);
  t.deepEqual(
    told.filter((one, i) => told.indexOf(one) !== i),
    [],
  );
  for (const { key, what, where, reason, instead } of rows)
    for (const text of [what, where, reason, instead]) t.regex(text, /^\S.*[^\s.;:]$/, key);
});

test("an error says what, where, with which value, why, and what to do", (t) => {
  const refusal = { what: "a", where: "with b", reason: "it is so", instead: "take c" };
  const error = createRefusal(refusal, "call", "b of 3");
  t.true(error instanceof LowrankError);
  t.is(error.code, "ERR_OPTION");
  t.is(error.message, "call: a with b (b of 3): it is so; take c");
  t.is(createRefusal(refusal, "f", undefined, "ERR_FILE_FORMAT").message, "f: a with b: it is so; take c");
  t.is(explain(refusal), "it is so; take c");
});
