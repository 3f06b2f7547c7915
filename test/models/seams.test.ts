/** Texts encoded in pieces have the ids of the whole text, for every kind of tokenizer. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import test from "ava";
import { encodeRunning } from "../../src/data/encode.js";
import { locateDefaultModel } from "../../src/models/default.js";
import { Tokenizer } from "../../src/models/tokenizer.js";
import { addedToken } from "../added-token.js";
import { temporary } from "../hashed.js";

type Json = Record<string, unknown>;

const folder = temporary();
const embedded = JSON.parse(readFileSync(join(locateDefaultModel(), "tokenizer.json"), "utf8")) as Json;

const GPT4 = String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
const O200K = String.raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`;

const split = (Regex: string): Json => ({
  type: "Split",
  pattern: { Regex },
  behavior: "Isolated",
  invert: false,
});
const bytes = (use_regex: boolean, add_prefix_space = false): Json => ({
  type: "ByteLevel",
  add_prefix_space,
  trim_offsets: true,
  use_regex,
});
const sequence = (...pretokenizers: Json[]): Json => ({ type: "Sequence", pretokenizers });
const framed: Json = {
  type: "TemplateProcessing",
  single: [
    { SpecialToken: { id: "<a>", type_id: 0 } },
    { Sequence: { id: "A", type_id: 0 } },
    { SpecialToken: { id: "<b>", type_id: 0 } },
  ],
  pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 0 } }],
  special_tokens: {
    "<a>": { id: "<a>", ids: [2048], tokens: ["<a>"] },
    "<b>": { id: "<b>", ids: [2049], tokens: ["<b>"] },
  },
};
const tokens = [
  ...(embedded["added_tokens"] as Json[]),
  addedToken(2048, "<a>"),
  addedToken(2049, "<b>"),
  addedToken(2050, "<mask>", { lstrip: true }),
  addedToken(2051, "<r>", { rstrip: true }),
  addedToken(2052, "word", { single_word: true, special: false }),
  addedToken(2053, "THE", { normalized: true, special: false }),
  addedToken(2054, "  ", { special: false }),
];

/** Returns a BERT WordPiece tokenizer with letters and a few words. */
function bert(): Json {
  const pieces = ["[UNK]", "<a>", "<b>", "the", "cat", "##s", "word", ".", ",", "'", "漢", "é"];
  const letters = [..."abcdefghijklmnopqrstuvwxyz0123456789"];
  const vocab = [...new Set([...pieces, ...letters, ...letters.map((letter) => `##${letter}`)])];
  const special_tokens = {
    "<a>": { id: "<a>", ids: [1], tokens: ["<a>"] },
    "<b>": { id: "<b>", ids: [2], tokens: ["<b>"] },
  };
  return {
    ...embedded,
    added_tokens: [addedToken(0, "[UNK]"), addedToken(1, "<a>"), addedToken(2, "<b>")],
    normalizer: {
      type: "BertNormalizer",
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: null,
      lowercase: true,
    },
    pre_tokenizer: { type: "BertPreTokenizer" },
    post_processor: { ...framed, special_tokens },
    decoder: { type: "WordPiece", prefix: "##", cleanup: true },
    model: {
      type: "WordPiece",
      unk_token: "[UNK]",
      continuing_subword_prefix: "##",
      max_input_chars_per_word: 100,
      vocab: Object.fromEntries(vocab.map((piece, i) => [piece, i])),
    },
  };
}

const BUILT: Record<string, Json> = {
  "GPT-2": embedded,
  "GPT-2 with added tokens of all kinds": { ...embedded, added_tokens: tokens, post_processor: framed },
  "RoBERTa, a space in front": {
    ...embedded,
    pre_tokenizer: bytes(true, true),
    added_tokens: tokens,
    post_processor: framed,
  },
  "Llama 3": { ...embedded, pre_tokenizer: sequence(split(GPT4), bytes(false)), added_tokens: tokens },
  "GPT-4o": { ...embedded, pre_tokenizer: sequence(split(O200K), bytes(false)) },
  SmolLM2: {
    ...embedded,
    normalizer: { type: "NFC" },
    pre_tokenizer: sequence({ type: "Digits", individual_digits: true }, bytes(true)),
  },
  BERT: bert(),
};

const stories = join(process.env["LOWRANK_STORIES260K"] ?? "none", "tokenizer.json");
if (existsSync(stories)) {
  const plain = JSON.parse(readFileSync(stories, "utf8")) as Json;
  const metaspace = (more: Json): Json => ({
    ...plain,
    normalizer: null,
    pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true, ...more },
  });
  BUILT["SentencePiece, Llama 2's"] = plain;
  BUILT["SentencePiece with added tokens"] = {
    ...plain,
    added_tokens: [
      ...(plain["added_tokens"] as Json[]),
      addedToken(512, "word", { single_word: true, special: false }),
      addedToken(513, "<mask>", { lstrip: true, rstrip: true }),
    ],
  };
  BUILT["Metaspace"] = metaspace({});
  BUILT["Metaspace, first only"] = metaspace({ prepend_scheme: "first" });
  BUILT["Metaspace without words"] = metaspace({ split: false });
}

function open(json: Json): Tokenizer {
  const path = join(folder, `${Math.random()}.json`);
  writeFileSync(path, JSON.stringify(json));
  return new Tokenizer(path);
}

/** Fragments that splitters, normalisers and added tokens treat differently. */
const fragment = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.constantFrom(
      "the",
      "cat",
      "word",
      "sat",
      "A",
      "THE",
      "you're",
      "don't",
      "x1y22",
      "1234567",
    ),
  },
  {
    weight: 6,
    arbitrary: fc.constantFrom(
      " ",
      " ",
      " ",
      "\n",
      "  ",
      "\n\n",
      " \n",
      "\t",
      "\r\n",
      "   ",
      "\u00a0",
      "\u3000",
    ),
  },
  {
    weight: 3,
    arbitrary: fc.constantFrom(".", ",", "!", "/", "'", "...", "—", "(", "。", "\u0301", "_", "#"),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      "漢字",
      "かな",
      "한국",
      "é",
      "e\u0301",
      "ß",
      "İ",
      "🙂",
      "\u200b",
      "हिन्दी",
      "▁",
      "ﬁ",
    ),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom("<a>", "<b>", "</s>", "<s>", "<mask>", "<r>", "<unk>", "<ma", "sk>"),
  },
);
const text = fc
  .tuple(fc.array(fragment, { minLength: 3, maxLength: 60 }), fc.integer({ min: 1, max: 60 }), fc.nat(7))
  .map(([parts, times, shift]) => "a".repeat(shift) + parts.join("").repeat(times));

const RUNS = 60;

for (const [name, json] of Object.entries(BUILT)) {
  test(`${name}: a truncated row has the first ids of the whole`, async (t) => {
    const tokenizer = open(json);
    t.not(tokenizer.parts, undefined, "its seams are known");
    await fc.assert(
      fc.asyncProperty(text, fc.integer({ min: 1, max: 700 }), fc.boolean(), async (one, limit, special) => {
        const whole = tokenizer.encode(one, { addSpecialTokens: special });
        const [cut] = await tokenizer.encodeRows([one], { addSpecialTokens: special, limit });
        t.deepEqual([...(cut?.ids ?? [])], [...whole.subarray(0, limit)]);
        if (whole.length <= limit) t.is(cut?.total, whole.length);
        else t.true((cut?.total ?? 0) >= limit);
      }),
      { numRuns: RUNS },
    );
  });

  test(`${name}: a text that is read in parts has the ids of the whole`, async (t) => {
    const tokenizer = open(json);
    await fc.assert(
      fc.asyncProperty(text, fc.integer({ min: 1, max: 5000 }), async (one, size) => {
        // Parts as read from a file: split between any two characters.
        const characters = [...one];
        async function* parts() {
          for (let at = 0; at < characters.length; at += size) {
            yield { part: characters.slice(at, at + size).join(""), read: 0 };
          }
        }
        const ids: number[] = [];
        for await (const part of encodeRunning(parts(), tokenizer)) ids.push(...part.ids);
        t.deepEqual(ids, [...tokenizer.encode(one)]);
      }),
      { numRuns: RUNS },
    );
  });
}

test("pieces run in parallel: a long text has the ids of the whole", async (t) => {
  const tokenizer = open(embedded);
  const long = readFileSync(join(locateDefaultModel(), "moby-dick.txt"), "utf8")
    .replaceAll("\r\n", "\n")
    .slice(0, 300_000);
  const at = tokenizer.parts?.lastSeam(long) ?? 0;
  t.true(at > long.length - 100);
  const [head, tail] = await Promise.all([
    tokenizer.parts?.encode(long.slice(0, at), true),
    tokenizer.parts?.encode(long.slice(at), false),
  ]);
  t.deepEqual([...(head ?? []), ...(tail ?? [])], [...tokenizer.encode(long, { addSpecialTokens: false })]);
});

test("a tokenizer with unknown parts is encoded in one piece", async (t) => {
  const unknown: Json[] = [
    { ...embedded, pre_tokenizer: sequence(split(String.raw`\p{L}+(?= the)|\s+`), bytes(false)) },
    { ...embedded, normalizer: { type: "Strip", strip_left: true, strip_right: true } },
    { ...embedded, pre_tokenizer: sequence({ type: "UnicodeScripts" }, bytes(true)) },
    { ...embedded, model: { ...(embedded["model"] as Json), dropout: 0.1 } },
  ];
  for (const json of unknown) {
    const tokenizer = open(json);
    t.is(tokenizer.parts, undefined);
    if ((json["model"] as Json)["dropout"] !== null) continue;
    const long = "the cat sat on the mat ".repeat(1000);
    const [cut] = await tokenizer.encodeRows([long], { limit: 50 });
    const whole = tokenizer.encode(long);
    t.deepEqual([...(cut?.ids ?? [])], [...whole.subarray(0, 50)]);
    t.is(cut?.total, whole.length);
  }
});
