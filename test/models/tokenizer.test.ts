/** The tokenizer alone: batches, offsets, and refusals. */
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { LowrankError, Tokenizer } from "../../src/index.js";
import { temporary, tinyModel } from "../hashed.js";
import { goldens } from "../parity/goldens.js";

test("a batch of texts is encoded like single texts", async (t) => {
  const tokenizer = new Tokenizer(join(tinyModel(), "tokenizer.json"));
  const texts = ["the whale", "", "é", "the sea\n".repeat(1000), "</s>"];
  for (const addSpecialTokens of [true, false]) {
    const alone = texts.map((text) => tokenizer.encode(text, { addSpecialTokens }));
    t.deepEqual(await tokenizer.encodeAll(texts, { addSpecialTokens }), alone);
  }
  t.deepEqual(await tokenizer.encodeAll([]), []);
});

const wordpiece = join(goldens, "encodings", "wordpiece");

/** Returns a tokenizer next to a `tokenizer_config.json` with these fields. */
function configured(fields: Record<string, unknown>): Tokenizer {
  const folder = temporary();
  copyFileSync(join(wordpiece, "tokenizer.json"), join(folder, "tokenizer.json"));
  writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify(fields));
  return new Tokenizer(join(folder, "tokenizer.json"));
}

test("offsets are JavaScript's string indices", (t) => {
  const tokenizer = new Tokenizer(join(wordpiece, "tokenizer.json"));
  const text = "Ada 😀 was born, 日本 and 👩‍👩‍👧 too";
  const { ids, offsets, wordIds } = tokenizer.encode(text, { offsets: true });
  t.deepEqual(offsets[0], [0, 0]);
  t.is(wordIds[0], null);
  const known = ["born", "and"];
  for (const word of known) {
    const at = text.indexOf(word);
    const inside = [...offsets.keys()].filter(
      (i) => offsets[i]![0] >= at && offsets[i]![1] <= at + word.length,
    );
    const parts = inside.filter((i) => wordIds[i] !== null);
    t.is(parts.map((i) => text.slice(...offsets[i]!)).join(""), word);
    t.is(new Set(parts.map((i) => wordIds[i])).size, 1);
  }
  t.is(ids.length, offsets.length);
  t.deepEqual(tokenizer.encode(text), ids);
});

test("a batch takes its defaults from the tokenizer's configuration", async (t) => {
  const texts = ["the whale swam past the harbour", "the"];
  const left = configured({ pad_token: "[MASK]", padding_side: "left", model_max_length: 5 });
  const batch = left.encodeBatch(texts, { truncation: true });
  t.deepEqual(batch.ids.shape, [2, 5]);
  const pad = left.tokenToId("[MASK]")!;
  t.deepEqual(Array.from(await batch.ids.data()).slice(5, 7), [pad, pad]);
  t.deepEqual(Array.from(await batch.attentionMask.data()).slice(5), [0, 0, 1, 1, 1]);
  // Llama's tokenizers pad on the left by default, and "[PAD]" is found by its name.
  const llama = configured({ tokenizer_class: "LlamaTokenizerFast" }).encodeBatch(texts);
  t.deepEqual(Array.from(await llama.attentionMask.data()).slice(-3), [1, 1, 1]);
  const bare = configured({}).encodeBatch(texts);
  t.deepEqual(Array.from(await bare.attentionMask.data()).slice(-1), [0]);
  t.is(Array.from(await bare.ids.data()).at(-1), left.tokenToId("[PAD]"));
  const cut = configured({ truncation_side: "left" });
  t.deepEqual(
    cut.encode("the whale swam", { maxLength: 3 })[1],
    cut.encode("swam", { addSpecialTokens: false }).at(-1),
  );
});

test("an impossible batch is refused before anything is allocated", (t) => {
  const tokenizer = configured({});
  const refused = (call: () => unknown, message: RegExp): void => {
    t.throws(call, { instanceOf: LowrankError, code: "ERR_OPTION", message });
  };
  const texts = ["the whale", "the"];
  refused(() => tokenizer.encodeBatch(texts, { padding: false }), /rows have from 3 to \d+ tokens.*padding/);
  refused(() => tokenizer.encodeBatch(texts, { truncation: true }), /truncation needs maxLength/);
  refused(() => tokenizer.encodeBatch(texts, { padding: "max_length" }), /"max_length" needs maxLength/);
  refused(
    () => tokenizer.encodeBatch(texts, { truncation: false, padding: "max_length", maxLength: 3 }),
    /row 0 has \d+ tokens, more than maxLength 3; set truncation/,
  );
  refused(
    () => tokenizer.encodeBatch(texts, { maxLength: 1 }),
    /encodeBatch: maxLength 1 .* 2 special tokens/,
  );
  refused(() => tokenizer.encode("a", { maxLength: 1 }), /^encode: maxLength 1 /);
  refused(() => tokenizer.encodeBatch(texts, { pairs: ["a"] }), /pairs must be one text for each of 2 texts/);
  refused(
    () => tokenizer.encodeBatch(texts, { truncation: "only_second", maxLength: 3 }),
    /truncation "only_second" needs pairs/,
  );
  refused(() => tokenizer.encodeBatch([]), /texts must be an array of at least one text/);
  refused(
    () => tokenizer.encodeBatch(texts, { padding: "longer" as "longest" }),
    /padding must be one of longest, max_length/,
  );
  const plain = new Tokenizer(join(goldens, "encodings", "prefixed", "tokenizer.json"));
  t.notThrows(() => plain.encodeBatch(texts, { padTokenId: 0 }));
  const side = configured({ padding_side: "above" });
  t.throws(() => side.encodeBatch(texts), {
    code: "ERR_FILE_FORMAT",
    message: /padding_side must be "left" or "right"/,
  });
  const gpt2 = unpadded();
  refused(() => gpt2.encodeBatch(texts), /no padding token; pass padTokenId/);
  t.notThrows(() => gpt2.encodeBatch(texts, { padding: false, maxLength: 1 }));
});

/** Returns a tokenizer that names no padding token and has none of the usual names. */
function unpadded(): Tokenizer {
  const folder = temporary();
  const json = readFileSync(join(goldens, "encodings", "roberta", "tokenizer.json"), "utf8");
  const renamed = JSON.parse(json.replaceAll('"<pad>"', '"<other>"')) as Record<string, unknown>;
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify({ ...renamed, post_processor: null }));
  return new Tokenizer(join(folder, "tokenizer.json"));
}
