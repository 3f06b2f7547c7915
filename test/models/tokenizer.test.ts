import { join } from "node:path";

import test from "ava";

import { Tokenizer } from "../../src/index.js";
import { tinyModel } from "../hashed.js";

test("many texts at once are encoded as each alone", async (t) => {
  const tokenizer = new Tokenizer(join(tinyModel(), "tokenizer.json"));
  const texts = ["the whale", "", "é", "the sea\n".repeat(1000), "</s>"];
  for (const addSpecialTokens of [true, false]) {
    const alone = texts.map((text) => tokenizer.encode(text, { addSpecialTokens }));
    t.deepEqual(await tokenizer.encodeAll(texts, { addSpecialTokens }), alone);
  }
  t.deepEqual(await tokenizer.encodeAll([]), []);
});
