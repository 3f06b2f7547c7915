/** Rows of prompt and completion in chat templates: texts of mlx-lm and TRL, and the raw form. */
import { readFileSync } from "node:fs";

import test from "ava";

import { locateTurns } from "../../src/chat/turns.js";
import { tokenizeRows, type ExampleOptions } from "../../src/data/examples.js";
import { isTrained } from "../../src/data/parts.js";
import { formatPrompts } from "../../src/data/prompts.js";
import type { ChatRow, TextRow } from "../../src/data/rows.js";
import { listWarnings } from "../../src/data/report.js";
import type { Tokenizer } from "../../src/models/tokenizer.js";
import { rowsOf } from "../data/sources.js";
import { chatMl, families, type Family, templateText, tokenizerOf } from "./fixtures.js";

interface Written {
  prompt: string;
  completion: string;
}
type Golden = { mlx: Written | null; trl: Written | { refused: string } }[];

const read = (path: string): unknown => JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8"));
const rows = read("prompts.json") as object[];
const golden = read("../parity/goldens/chat_prompts.json") as Record<string, Golden>;

const qwen = (): Tokenizer => tokenizerOf(chatMl, templateText("qwen2_5"));
const plain = (): Tokenizer => tokenizerOf(chatMl, undefined);

/** Returns the rows' examples as texts, with the trained tokens in brackets, and the warnings. */
async function encoded(
  tokenizer: Tokenizer,
  data: object[],
  options: Partial<ExampleOptions> = {},
): Promise<{ texts: string[]; warnings: string[] }> {
  const source = await rowsOf(...data);
  const eosTokenIds = [tokenizer.tokenToId("</s>") as number];
  const store = await tokenizeRows(source, tokenizer, { maxLength: 1000, eosTokenIds, ...options });
  const decode = (ids: Int32Array): string => tokenizer.decode(ids, { skipSpecialTokens: false });
  const texts = Array.from(store, (row) => {
    const parts: { trained: boolean; ids: number[] }[] = [];
    for (const [i, id] of row.ids.entries()) {
      const trained = isTrained(row, i);
      if (parts.at(-1)?.trained === trained) parts.at(-1)?.ids.push(id);
      else parts.push({ trained, ids: [id] });
    }
    return parts
      .map(({ trained, ids }) =>
        trained ? `[${decode(Int32Array.from(ids))}]` : decode(Int32Array.from(ids)),
      )
      .join("");
  });
  const warnings = store.reports.flatMap((report) =>
    listWarnings(report, { maxLength: 1000, modelLength: 2000 }),
  );
  return { texts, warnings: warnings.map((one) => one.replace(source.file, "f")) };
}

/** Returns a row's text by the template, split where training begins; it is trained to the end. */
async function written(tokenizer: Tokenizer, row: object): Promise<Written> {
  const { sources } = await rowsOf(row);
  const [source] = sources;
  if (source === undefined) throw new Error("no source");
  const all: TextRow[] = [];
  for await (const { part } of source.parts()) all.push(...part);
  const format = { format: "auto", trainOn: undefined } as const;
  const [chat] = formatPrompts(all, tokenizer, format, source) as ChatRow[];
  const template = tokenizer.findChatTemplate(false);
  const text = template.render(chat as ChatRow);
  const { turns } = locateTurns(template, chat as ChatRow, text);
  const [turn, ...others] = turns.filter(({ unweighted }) => unweighted !== true);
  if (turn === undefined || others.length > 0 || turn.end !== text.length)
    throw new Error("the trained part is not one turn at the end");
  return { prompt: text.slice(0, turn.start), completion: text.slice(turn.start) };
}

test("there are goldens of five templates, and each row has one", (t) => {
  t.is(Object.keys(golden).length, 5);
  for (const all of Object.values(golden)) t.is(all.length, rows.length);
  t.is(rows.length, 8);
});

for (const [name, all] of Object.entries(golden))
  test(`${name}: text and trained part equal mlx-lm's and TRL's`, async (t) => {
    const family = (families[name] ?? chatMl) as Family;
    const tokenizer = tokenizerOf(family, templateText(name));
    for (const [i, { mlx, trl }] of all.entries()) {
      const row = rows[i] as object;
      if ("refused" in trl) {
        await t.throwsAsync(written(tokenizer, row), { message: new RegExp(trl.refused) });
        continue;
      }
      const mine = await written(tokenizer, row);
      t.deepEqual(mine, trl, `row ${i}: TRL`);
      if (mlx !== null) t.deepEqual(mine, mlx, `row ${i}: mlx-lm`);
    }
  });

const row = { prompt: "Who?", completion: "Marta." };
const SYSTEM =
  "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n";

test("with a template, prompt and completion are a user's and an assistant's message, and a notice says so", async (t) => {
  for (const promptFormat of [undefined, "auto", "chat"] as const) {
    const { texts, warnings } = await encoded(qwen(), [row, { text: "a" }], { promptFormat });
    t.is(texts[0], `${SYSTEM}<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n[Marta.<|im_end|>\n]`);
    t.deepEqual(warnings, [
      "f: 1 of 2 rows (first line 1) written by the chat template, as a user's prompt and its answer; promptFormat raw trains the plain texts",
    ]);
  }
  const all = await encoded(qwen(), [row], { trainOn: "all" });
  t.regex(all.texts[0] ?? "", /\[.*Who\?.*Marta/s);
  t.is(all.warnings.length, 1);
});

test("the raw form joins the texts, and is the only one without a template", async (t) => {
  const expected = { texts: ["Who?[Marta.</s>]"], warnings: [] };
  t.deepEqual(await encoded(qwen(), [row], { promptFormat: "raw" }), expected);
  t.deepEqual(await encoded(plain(), [row]), expected);
  t.deepEqual(await encoded(plain(), [row], { promptFormat: "raw" }), expected);
  await t.throwsAsync(encoded(plain(), [row], { promptFormat: "chat" }), {
    code: "ERR_CHAT_TEMPLATE",
    message: /no chat template, which messages need; .* option chatTemplate$/,
  });
});

const user = (content: string): object => ({ role: "user", content });
const assistant = (content: string): object => ({ role: "assistant", content });

test("messages as prompt: only the completion's answers are trained on, or with trainOn all everything", async (t) => {
  const long = {
    prompt: [user("q1"), assistant("a1"), user("q2")],
    completion: [assistant("a2"), user("q3"), assistant("a3")],
  };
  const { texts, warnings } = await encoded(qwen(), [long]);
  t.deepEqual(texts[0]?.match(/\[[^\]]*\]/g), ["[a2<|im_end|>\n]", "[a3<|im_end|>\n]"]);
  t.true(texts[0]?.includes("a1"));
  t.deepEqual(warnings, []);
  const all = await encoded(qwen(), [long], { trainOn: "all" });
  t.regex(all.texts[0] ?? "", /^[^[]{0,20}\[.*a1.*q3.*a3<\|im_end\|>\n\]$/s);
  const weighted = {
    prompt: long.prompt,
    completion: [{ ...assistant("a2"), weight: 0 }, user("q3"), assistant("a3")],
  };
  t.deepEqual((await encoded(qwen(), [weighted])).texts[0]?.match(/\[[^\]]*\]/g), ["[a3<|im_end|>\n]"]);
  const unanswered = await encoded(qwen(), [{ prompt: [user("q")], completion: [user("q2")] }, row]);
  t.regex(unanswered.warnings.join(), /1 of 2 rows \(first line 1\) skipped: there is no assistant turn/);
});

test("tools next to messages as prompt", async (t) => {
  const tools = [{ type: "function", function: { name: "weather", parameters: {} } }];
  const { texts } = await encoded(tokenizerOf(chatMl, templateText("qwen3")), [
    { prompt: [user("q")], completion: [assistant("a")], tools },
  ]);
  t.regex(texts[0] ?? "", /"name": "weather"/);
});

test("refused: messages in the raw form or without a template, a text next to messages, what messages refuse", async (t) => {
  const messages = { prompt: [user("q")], completion: [assistant("a")] };
  await t.throwsAsync(encoded(qwen(), [messages], { promptFormat: "raw" }), {
    code: "ERR_DATA_ROW",
    message: /:1: "prompt" is an array of messages, .*; use promptFormat chat$/,
  });
  await t.throwsAsync(encoded(plain(), [messages]), { code: "ERR_CHAT_TEMPLATE" });
  const cases: [object, RegExp][] = [
    [
      { prompt: [user("q")], completion: "a" },
      /"completion" is a string, and "prompt" an array of messages; make both strings, or both arrays/,
    ],
    [{ prompt: "q", completion: [assistant("a")] }, /"prompt" is a string, and "completion" an array/],
    [{ prompt: [user("q")] }, /"completion" is nothing, and "prompt" an array/],
    [{ prompt: [], completion: [assistant("a")] }, /"prompt" is empty/],
    [{ prompt: ["q"], completion: [assistant("a")] }, /"prompt"\[0\] must be an object, got a string/],
    [{ ...messages, system: "s" }, /has a "system" next to "prompt"/],
  ];
  for (const [one, message] of cases)
    await t.throwsAsync(rowsOf(one), { code: "ERR_DATA_ROW", message }, JSON.stringify(one));
});

test("a template that fails with the rows: the error names the raw form", async (t) => {
  const failing = tokenizerOf(chatMl, "{{ raise_exception('no') }}");
  await t.throwsAsync(encoded(failing, [row]), {
    code: "ERR_CHAT_TEMPLATE",
    message: /:1: .*refuses the messages: no; promptFormat raw trains the plain texts$/,
  });
  t.deepEqual((await encoded(failing, [row], { promptFormat: "raw" })).texts, ["Who?[Marta.</s>]"]);
});
