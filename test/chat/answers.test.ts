/** Messages as prompts: generation, and the end of an answer. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { loadModel } from "../../src/index.js";
import { tinyModel } from "../hashed.js";

const TEMPLATE =
  "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}{% if add_generation_prompt %}a:{% endif %}";
const messages = [{ role: "user", content: "hello" }];

/** Returns the tokens of an answer, and of a text, from a model with this tokenizer_config.json. */
async function answers(
  config: object,
): Promise<{ chat: number[]; batch: number[]; text: number[]; letter: string }> {
  const folder = tinyModel();
  writeFileSync(join(folder, "chat_template.jinja"), TEMPLATE);
  writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify(config));
  const model = await loadModel<"causal-lm">(folder, { device: "cpu" });
  const options = { maxNewTokens: 12, repetitionPenalty: 3 };
  const [chat, batch, text]: [number[], number[], number[]] = [[], [], []];
  for await (const { token } of model.generate(messages, options)) chat.push(token);
  for await (const [piece] of model.generateBatch([messages], options)) if (piece) batch.push(piece.token);
  for await (const { token } of model.generate("u:hello;a:", options)) text.push(token);
  const letter = model.tokenizer?.decode(Int32Array.of(chat[3] ?? 0)) ?? "";
  model.dispose();
  return { chat, batch, text, letter };
}

test("messages give the same tokens as their rendered text, and also end at the tokenizer's end token", async (t) => {
  const plain = await answers({});
  t.is(plain.chat.length, 12);
  t.deepEqual(plain.batch, plain.chat);
  t.deepEqual(plain.text, plain.chat);
  const ended = await answers({ eos_token: plain.letter });
  t.deepEqual(ended.chat, plain.chat.slice(0, plain.chat.indexOf(plain.chat[3] as number)));
  t.deepEqual(ended.batch, ended.chat);
  t.deepEqual(ended.text, plain.text);
});
