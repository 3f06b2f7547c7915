/** The positions of tokens in a text, and the tokens of each turn. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { type Offsets, findTokenSpans } from "../../src/chat/tokens.js";
import { encodeChats, fitChat } from "../../src/data/chat.js";
import { createReport, listWarnings } from "../../src/data/report.js";
import type { ChatRow } from "../../src/data/rows.js";
import { ExampleStore, computeFingerprint } from "../../src/data/store.js";
import { LowrankError } from "../../src/errors.js";
import { Tokenizer } from "../../src/models/tokenizer.js";
import { temporary, tinyModel } from "../hashed.js";
import { chatMl, tokenizerOf } from "./fixtures.js";

/** Returns a tokenizer from the parts of its file. */
function tokenizerFrom(parts: Record<string, unknown>): Tokenizer {
  const file = join(temporary(), "tokenizer.json");
  const none = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };
  const json = { version: "1.0", truncation: null, padding: null, added_tokens: [], ...none, ...parts };
  writeFileSync(file, JSON.stringify(json));
  return new Tokenizer(file);
}

/** Returns the part of the text that each token covers. */
async function placed(tokenizer: Tokenizer, text: string): Promise<string[]> {
  const [one] = await tokenizer.encodeWithOffsets([text]);
  const { ids, offsets } = one as { ids: Int32Array; offsets: Offsets };
  assert.deepEqual(ids, tokenizer.encode(text, { addSpecialTokens: false }));
  return Array.from(offsets.starts, (start, i) => text.slice(start, offsets.ends[i]));
}

/** Returns a BPE of single characters and these merges, with bytes as the fallback. */
function bpe(characters: string, merges: [string, string][] = [], more: Record<string, unknown> = {}) {
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`);
  const pieces = ["<unk>", ...bytes, ...characters, ...merges.map(([a, b]) => a + b)];
  const vocab = Object.fromEntries(pieces.map((piece, id) => [piece, id]));
  return {
    type: "BPE",
    dropout: null,
    unk_token: "<unk>",
    fuse_unk: false,
    byte_fallback: true,
    vocab,
    merges,
    ...more,
  };
}

test("SentencePiece: a space in front, spaces as marks, letters as bytes", async (t) => {
  const normalizer = {
    type: "Sequence",
    normalizers: [
      { type: "Prepend", prepend: "▁" },
      { type: "Replace", pattern: { String: " " }, content: "▁" },
    ],
  };
  const tokenizer = tokenizerFrom({ normalizer, model: bpe("▁abc", [["▁", "a"]]) });
  t.deepEqual(await placed(tokenizer, "ab a🐋c"), ["a", "b", " a", ...Array(4).fill("🐋"), "c"]);
  t.deepEqual(await placed(tokenizer, ""), []);
});

test("letters missing from a vocabulary have positions, one by one or together", async (t) => {
  const model = bpe("abc", [], { byte_fallback: false });
  t.deepEqual(await placed(tokenizerFrom({ model }), "aé🐋b"), ["a", "é", "🐋", "b"]);
  const fused = tokenizerFrom({ model: { ...model, fuse_unk: true } });
  t.deepEqual(await placed(fused, "aé🐋b"), ["a", "é🐋", "b"]);
});

test("with a normaliser positions refer to the original text", async (t) => {
  const vocab = Object.fromEntries(
    ["[UNK]", "ab", "##c", "e", "k", "(", ")"].map((piece, id) => [piece, id]),
  );
  const model = {
    type: "WordPiece",
    unk_token: "[UNK]",
    continuing_subword_prefix: "##",
    max_input_chars_per_word: 100,
    vocab,
  };
  const normalizer = {
    type: "BertNormalizer",
    clean_text: true,
    handle_chinese_chars: true,
    strip_accents: null,
    lowercase: true,
  };
  const tokenizer = tokenizerFrom({ normalizer, pre_tokenizer: { type: "BertPreTokenizer" }, model });
  t.deepEqual(await placed(tokenizer, "ABC  (É) 鯨"), ["AB", "C", "(", "É", ")", "鯨"]);
  const compatible = tokenizerFrom({ normalizer: { type: "NFKC" }, model: bpe("abkfi") });
  // The ligature is two letters, and each of them covers all of it.
  t.deepEqual(await placed(compatible, "aﬁb"), ["a", "ﬁ", "ﬁ", "b"]);
});

test("whitespace belongs to its token, although a post-processor trims it", async (t) => {
  const tokenizer = tokenizerOf(chatMl, "x");
  const json = JSON.parse(readFileSync(tokenizer.path, "utf8")) as Record<string, unknown>;
  const post_processor = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const trimming = tokenizerFrom({ ...json, post_processor });
  const text = "<|im_start|>user\n  a the whale\n\n";
  t.is((await placed(trimming, text)).join(""), text);
});

/** Returns the offsets of tokens with these lengths. */
function offsets(...lengths: number[]): Offsets {
  const ends = lengths.map((_, i) => lengths.slice(0, i + 1).reduce((sum, n) => sum + n, 0));
  return {
    starts: Int32Array.from(ends, (end, i) => end - (lengths[i] as number)),
    ends: Int32Array.from(ends),
  };
}

test("a turn includes each token with one of its characters, and at a rough end only complete ones", (t) => {
  const tokens = offsets(2, 2, 2, 2);
  t.deepEqual(findTokenSpans([{ start: 2, end: 6 }], tokens), [{ start: 1, end: 3 }]);
  t.deepEqual(findTokenSpans([{ start: 3, end: 7 }], tokens), [{ start: 1, end: 4 }]);
  t.deepEqual(findTokenSpans([{ start: 3, end: 7, rough: true }], tokens), [{ start: 1, end: 3 }]);
  t.deepEqual(findTokenSpans([{ start: 3, end: 4, rough: true }], tokens), [{ start: 1, end: 2 }]);
  t.deepEqual(
    findTokenSpans(
      [
        { start: 3, end: 3, rough: true },
        { start: 6, end: 8 },
      ],
      tokens,
    ),
    [{ start: 3, end: 4 }],
  );
});

test("the embedded model's tokens cover the text, including multi-byte letters", async (t) => {
  const tokenizer = tokenizerOf(chatMl, "x");
  const text = "<|im_start|>user\nGröße 🐋鯨 \t x<|im_end|>\n";
  const [one] = await tokenizer.encodeWithOffsets([text]);
  const pieces = Array.from(one!.ids, (_, i) => text.slice(one!.offsets.starts[i], one!.offsets.ends[i]));
  t.is(pieces[0], "<|im_start|>");
  t.is(pieces.filter((piece, i) => piece !== pieces[i - 1]).join(""), text);
  t.true(pieces.filter((piece) => piece === "🐋").length > 1);
});

const row = (messages: ChatRow["messages"], line = 1): ChatRow => ({
  kind: "chat",
  line,
  format: "messages",
  messages,
});
const asked = (content: string, answer: string) =>
  row([
    { role: "user", content },
    { role: "assistant", content: answer },
  ]);

test("turns are found if the tokenizer lacks their letters, or merges them with the text before", async (t) => {
  const folder = tinyModel();
  const template =
    "{% for m in messages %}{{ m.role[0] }}{{ m.content }}.{% endfor %}{% if add_generation_prompt %}a{% endif %}";
  writeFileSync(join(folder, "chat_template.jinja"), template);
  const tokenizer = new Tokenizer(join(folder, "tokenizer.json"));
  const [one] = await encodeChats([asked("é", "ü")], tokenizer, { file: "f", numbering: "line" });
  t.is(one?.ids.length, 6);
  t.deepEqual(one?.spans, [{ start: 4, end: 6 }]);

  // Here the text begins with other tokens than its prefix encoded alone.
  const merging = temporary();
  const json = JSON.parse(readFileSync(join(folder, "tokenizer.json"), "utf8")) as {
    model: { vocab: Record<string, number>; merges: string[][] };
  };
  json.model.vocab["ab"] = Object.keys(json.model.vocab).length;
  json.model.merges.push(["a", "b"]);
  writeFileSync(join(merging, "tokenizer.json"), JSON.stringify(json));
  writeFileSync(join(merging, "chat_template.jinja"), template);
  const [other] = await encodeChats([asked("é", "b")], new Tokenizer(join(merging, "tokenizer.json")), {
    file: "f",
    numbering: "line",
  });
  // Tokens: u, é, the stop, "ab", the stop. As in transformers, a turn includes each token with one of its
  // characters.
  t.is(other?.ids.length, 5);
  t.deepEqual(other?.spans, [{ start: 3, end: 5 }]);
});

test("a template that refuses a row names its file and line", async (t) => {
  const tokenizer = tokenizerOf(chatMl, "{{ raise_exception('roles must alternate') }}");
  const rows = [row([{ role: "user", content: "a" }], 7)];
  const error = await t.throwsAsync(encodeChats(rows, tokenizer, { file: "f.jsonl", numbering: "line" }), {
    instanceOf: LowrankError,
  });
  t.is(error.code, "ERR_CHAT_TEMPLATE");
  t.regex(error.message, /^f\.jsonl:7: .* refuses the messages: roles must alternate$/);
});

test("a conversation ends after the last turn that fits completely, or is skipped", (t) => {
  const chat = {
    text: "",
    ids: Int32Array.from({ length: 10 }, (_, i) => i),
    total: 10,
    spans: [
      { start: 2, end: 4 },
      { start: 6, end: 9 },
    ],
    lost: 0,
  };
  const one = asked("a", "b");
  const fit = (maxLength: number, more = {}) => {
    const report = createReport({ file: "f", numbering: "line" });
    const fitted = fitChat({ ...chat, ...more }, one, maxLength, report);
    return { ids: fitted?.ids.length, spans: fitted?.spans.length, report };
  };
  t.like(fit(10), { ids: 10, spans: 2, report: { rows: 1, cut: 0, dropped: 0, chat: undefined } });
  t.like(fit(9), { ids: 9, spans: 2, report: { cut: 1, chat: { shortened: 1 } } });
  t.like(fit(8), { ids: 4, spans: 1, report: { cut: 1, dropped: 0, chat: { shortened: 1 } } });
  t.like(fit(3), { ids: undefined, report: { cut: 0, dropped: 1, chat: { tooLong: 1 } } });
  t.like(fit(10, { spans: [] }), { ids: undefined, report: { dropped: 1, chat: { notFound: 1 } } });
  t.like(fit(10, { lost: 2 }), { ids: 10, report: { chat: { lastTurnOnly: 1 } } });
  const whole = fit(10, { spans: [{ start: 0, end: 10 }] });
  t.like(whole, { ids: 10, report: { chat: { whole: 1, first: { whole: 1 } } } });
  t.regex(
    listWarnings(whole.report, { maxLength: 10, modelLength: 100 }).join(),
    /^f: 1 of 1 rows \(first line 1\) trained on completely/,
  );
});

test("a store keeps spans: labels, the number of trained tokens, and the fingerprint", (t) => {
  const store = new ExampleStore("tokens", 100);
  const ids = Int32Array.of(11, 12, 13, 14, 15);
  store.addSpans(ids, [
    { start: 0, end: 2 },
    { start: 3, end: 4 },
  ]);
  store.addSpans(new Int32Array(), []);
  store.add(ids, 2);
  store.addSpans(ids, [{ start: 2, end: 5 }]);
  t.deepEqual([...(store.at(0)?.labels ?? [])], [11, 12, -100, 14, -100]);
  t.deepEqual(
    [0, 1, 2, 3].map((i) => store.trainedAt(i)),
    [2, 0, 3, 3],
  );
  t.deepEqual(store.at(3), store.at(2));
  const other = new ExampleStore("tokens", 100);
  other.addSpans(ids, [{ start: 0, end: 2 }]);
  t.not(computeFingerprint(other), computeFingerprint(store.pick(Uint32Array.of(0))));
  t.is(computeFingerprint(store.pick(Uint32Array.of(2))), computeFingerprint(store.pick(Uint32Array.of(3))));
});
