/** Special tokens that the tokenizer adds: to a completion's prompt, and not to a rendered conversation. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { loadModel, type Tokenizer } from "../../src/index.js";
import { tinyModel } from "../hashed.js";
import { BASE, serving, TEMPLATE } from "./serving.js";

/** Returns the folder of the tiny model with a tokenizer that starts each text with <s>. */
function beginningModel(): string {
  const folder = tinyModel();
  const path = join(folder, "tokenizer.json");
  const post_processor = {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 1 } }],
    special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
  };
  const tokenizer = JSON.parse(readFileSync(path, "utf8")) as object;
  writeFileSync(path, JSON.stringify({ ...tokenizer, post_processor }));
  return folder;
}

test("a completion's prompt gets the tokenizer's special tokens, and a conversation only the template's", async (t) => {
  const model = await loadModel(beginningModel(), { device: "cpu", task: "causal-lm" });
  const tokenizer = model.tokenizer as Tokenizer;
  tokenizer.chatTemplate = TEMPLATE;
  const { client } = await serving(t, { model, served: [{ name: BASE, adapter: null }] });
  const prompt = "the whale";
  const plain = tokenizer.encode(prompt, { addSpecialTokens: false }).length;
  t.is(tokenizer.encode(prompt).length, plain + 1);
  const completion = await client.completions.create({ model: BASE, prompt, max_tokens: 1 });
  t.is(completion.usage?.prompt_tokens, plain + 1);
  const messages = [{ role: "user" as const, content: prompt }];
  const chat = await client.chat.completions.create({ model: BASE, messages, max_tokens: 1 });
  const rendered = tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true });
  t.not(rendered[0], 1);
  t.is(chat.usage?.prompt_tokens, rendered.length);
});
