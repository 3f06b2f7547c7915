/** Each message and refusal that recommends something has a test that follows it, which `followed.ts` names. */
import test from "ava";

import { SECTIONS } from "../../scripts/refused/page.js";
import { messages, remedies } from "./collect.js";
import { FOLLOWED, REFUSALS_FOLLOWED } from "./followed.js";
import { FOLLOWED_REMEDIES, isCovered, LISTED_REMEDIES, REFUSALS_IN_WORDS } from "./remedies.js";
import { missingTest } from "./titles.js";

test("each message that recommends something is followed by a test", (t) => {
  const found = messages();
  t.true(found.length > 50, `${found.length} messages were found`);
  for (const { file, text } of found)
    t.true(
      FOLLOWED.some(([says]) => says.test(text)),
      `${file}: no test follows its recommendation: ${text}`,
    );
  for (const [says] of FOLLOWED)
    t.true(
      found.some(({ text }) => says.test(text)),
      `no message says ${String(says)} any more`,
    );
});

test("each remedy in words is followed by a test, or listed with the reason why not", (t) => {
  const found = remedies();
  t.true(found.length > 150, `${found.length} remedies were found`);
  for (const one of found)
    t.true(
      isCovered(one) || FOLLOWED.some(([says]) => says.test(one.text)),
      `${one.file}: neither followed nor listed: ${one.text}`,
    );
  for (const [says] of [...FOLLOWED_REMEDIES, ...LISTED_REMEDIES])
    t.true(
      found.some(({ text }) => text.includes(says)),
      `no message says ${says} any more`,
    );
});

test("each refusal whose remedy is in words alone is followed by a test, or listed", (t) => {
  const keys = SECTIONS.flatMap(({ title, refusals }) =>
    Object.keys(refusals).map((key) => `${title}: ${key}`),
  );
  const others = keys.filter((key) => !Object.hasOwn(REFUSALS_FOLLOWED, key));
  t.deepEqual(Object.keys(REFUSALS_IN_WORDS).sort(), others.sort());
});

test("each refusal that recommends an option or a command is followed by a test", (t) => {
  const named = SECTIONS.flatMap(({ title, refusals }) =>
    Object.entries(refusals).flatMap(([key, { instead }]) =>
      /`|--[a-z]|lowrank [a-z]+ /.test(instead) ? [`${title}: ${key}`] : [],
    ),
  );
  t.deepEqual(Object.keys(REFUSALS_FOLLOWED).sort(), named.sort());
});

test("each test in the tables exists: its file, and its title in the file", (t) => {
  const named = [...FOLLOWED.map(([, followed]) => followed), ...Object.values(REFUSALS_FOLLOWED)];
  named.push(...FOLLOWED_REMEDIES.map(([, followed]) => followed));
  named.push(...Object.values(REFUSALS_IN_WORDS).filter((one) => one.startsWith("test/")));
  for (const one of new Set(named)) if (one !== undefined) t.is(missingTest(one), undefined);
});

test("an entry without a title, and a missing title or file, are found", (t) => {
  const here = "test/recommendations/guard.test.ts";
  t.is(missingTest(`${here}: an entry without a title`), undefined);
  t.is(missingTest("test/recommendations/refusals.test.ts: ")?.includes("does not name"), true);
  t.is(missingTest(`${here}: guard`)?.includes("has no test of that title"), true);
  t.is(missingTest("test/none.test.ts: a title"), "there is no test/none.test.ts");
  // The expression of a template has to be a literal of the file.
  const filled = "test/recommendations/recommendations.test.ts: refused by finetune, with what to do: ";
  t.is(missingTest(`${filled}an odd rank`), undefined);
  t.is(missingTest(`${filled}an odd length`)?.includes("has no test of that title"), true);
});
