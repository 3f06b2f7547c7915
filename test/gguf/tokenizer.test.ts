/** Tokenizers of GGUF files compared with their originals (test/parity/gguf_tokenizers.py). */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { loadModel, saveModel, Tokenizer } from "../../src/index.js";
import { openGguf } from "../../src/gguf/read.js";
import { Metadata } from "../../src/gguf/import/metadata.js";
import { digestMetadata } from "../../src/gguf/import/model.js";
import { readArchitecture } from "../../src/gguf/import/names.js";
import { readTokenizer } from "../../src/gguf/import/tokenizer.js";
import { F32List, ggufModelFile, type Value } from "./models.js";
import { tokenizerMetadata, tokenizersFolder as folder } from "./tokenizers.js";
import { temporary } from "../hashed.js";

const { texts, ids } = JSON.parse(readFileSync(join(folder, "ids.json"), "utf8")) as {
  texts: string[];
  ids: Record<string, number[][]>;
};

function tokenizerIn(path: string): Tokenizer {
  const meta = new Metadata(openGguf(path), path);
  return readTokenizer(meta, readArchitecture(meta))!.tokenizer();
}

/** Returns the tokenizer of a file whose `tokenizer.ggml` keys are `fields`. */
function tokenizerOf(fields: Readonly<Record<string, Value>>): Tokenizer {
  const metadata = Object.fromEntries(
    Object.entries(fields).map(([key, value]) => [`tokenizer.ggml.${key}`, value]),
  );
  return tokenizerIn(ggufModelFile("llama", "f32", { size: 32, metadata }));
}

const stored = (name: string): string => join(folder, `${name}.gguf`);

for (const [name, rows] of Object.entries(ids)) {
  test(`${name} gives the ids of its original tokenizer`, async (t) => {
    const tokenizer = tokenizerIn(stored(name));
    for (const [i, expected] of rows.entries())
      t.deepEqual(Array.from(tokenizer.encode(texts[i]!)), expected, JSON.stringify(texts[i]));
    t.deepEqual(
      (await tokenizer.encodeAll(texts)).map((row) => Array.from(row)),
      rows,
    );
    for (const text of texts) {
      const back = tokenizer.decode(tokenizer.encode(text), { skipSpecialTokens: false });
      // SentencePiece adds a space before a text, or removes one.
      if (!name.endsWith("spm")) t.true(back.endsWith(text), JSON.stringify(back));
      else t.is(back.replaceAll(/<s>|\s/g, ""), text.replaceAll(/\s/g, ""));
    }
  });
}

test("a batch is padded with the file's padding token, or as the call says", async (t) => {
  const fields = {
    model: "llama",
    tokens: ["<unk>", "<s>", "</s>", "▁", "a", "▁a"],
    scores: [0, 0, 0, -2, -3, -1.5],
    token_type: [2, 3, 3, 1, 1, 1],
    bos_token_id: 1,
  };
  const rows = async (tokenizer: Tokenizer, options?: { padTokenId: number }): Promise<number[]> =>
    Array.from(await tokenizer.encodeBatch(["a a", "a"], options).ids.data());
  t.deepEqual(await rows(tokenizerOf({ ...fields, padding_token_id: 2 })), [1, 5, 5, 1, 5, 2]);
  const bare = tokenizerOf(fields);
  t.deepEqual(await rows(bare, { padTokenId: 0 }), [1, 5, 5, 1, 5, 0]);
  await t.throwsAsync(() => rows(bare), { code: "ERR_OPTION", message: /no padding token; pass padTokenId/ });
});

test("a file may disable the leading space, and set the positions of special tokens", (t) => {
  const of = (more: Record<string, boolean>): Tokenizer =>
    tokenizerOf({
      model: "llama",
      tokens: ["<unk>", "<s>", "</s>", "▁", "a", "▁a"],
      scores: [0, 0, 0, -2, -3, -1.5],
      token_type: [2, 3, 3, 1, 1, 1],
      bos_token_id: 1,
      eos_token_id: 2,
      ...more,
    });
  const plain = of({});
  t.deepEqual([...plain.encode("a")], [1, 5]);
  t.deepEqual([...plain.encode("a</s>a")], [1, 5, 2, 4]);
  t.is(plain.decode([5, 4]), "aa");
  const bare = of({ add_space_prefix: false, add_bos_token: false });
  t.deepEqual([...bare.encode("a a")], [4, 5]);
  t.is(bare.decode([5]), " a");
  const ended = of({ add_eos_token: true });
  t.deepEqual([...ended.encode("a")], [1, 5, 2]);
});

test("the chat template and the special tokens come from the file, and are saved with the model", async (t) => {
  const { vocabulary, metadata } = tokenizerMetadata("smollm");
  const path = ggufModelFile("llama", "q8_0", { size: 32, vocabulary, metadata });
  const model = await loadModel(path, { device: "cpu" });
  const messages = [{ role: "user", content: "Hi" }];
  const text = "<|im_start|>user\nHi<|im_end|>\n";
  t.is(model.tokenizer!.applyChatTemplate(messages, { tokenize: false }), text);
  const end = model.tokenizer!.tokenToId("<|im_end|>")!;
  t.deepEqual(model.config.eosTokenIds, [end]);
  const copy = join(temporary(), "copy");
  await saveModel(model, copy, { dtype: "f32" });
  const again = await loadModel(copy, { device: "cpu" });
  t.is(again.tokenizer!.applyChatTemplate(messages, { tokenize: false }), text);
  for (const one of texts) t.deepEqual(again.tokenizer!.encode(one), model.tokenizer!.encode(one));
  t.deepEqual(again.config.eosTokenIds, [end]);
  const config = JSON.parse(readFileSync(join(copy, "tokenizer_config.json"), "utf8")) as Record<
    string,
    unknown
  >;
  t.like(config, { bos_token: "<|end|>", eos_token: "<|im_end|>" });
  for (const one of [model, again]) one.dispose();
});

test("SmolLM's digits are separate tokens, for any merges", (t) => {
  const of = (pre: string): number[] => [
    ...tokenizerOf({ model: "gpt2", pre, tokens: ["1", "2", "12"], merges: ["1 2"] }).encode("12"),
  ];
  t.deepEqual(of("smollm"), [0, 1]);
  t.deepEqual(of("gpt-2"), [2]);
});

/** Writes a file with a SentencePiece tokenizer whose tokens have these texts, scores and types. */
function sentencePieceFile(
  vocabulary: readonly (readonly [token: string, score: number, type: number])[],
  more: Parameters<typeof ggufModelFile>[2] = {},
  architecture: "llama" | "gemma3" = "llama",
): string {
  const metadata = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": vocabulary.map(([token]) => token),
    "tokenizer.ggml.scores": new F32List(vocabulary.map(([, score]) => score)),
    "tokenizer.ggml.token_type": vocabulary.map(([, , type]) => type),
    "tokenizer.ggml.add_space_prefix": false,
    "tokenizer.ggml.add_bos_token": false,
    ...more.metadata,
  };
  return ggufModelFile(architecture, "f32", { size: architecture === "llama" ? 32 : 256, ...more, metadata });
}

test("the unknown token is the file's, or the first token of that type", (t) => {
  const tokens = [
    ["a", 0, 1],
    ["<unk>", 0, 2],
    ["<other>", 0, 2],
  ] as const;
  const first = tokenizerIn(sentencePieceFile(tokens));
  t.deepEqual([...first.encode("aéa")], [0, 1, 0]);
  const named = sentencePieceFile(tokens, { metadata: { "tokenizer.ggml.unknown_token_id": 2 } });
  t.deepEqual([...tokenizerIn(named).encode("aéa")], [0, 2, 0]);
  // An id beyond the vocabulary means that there is none.
  const beyond = sentencePieceFile(tokens, { metadata: { "tokenizer.ggml.unknown_token_id": 3 } });
  t.deepEqual([...tokenizerIn(beyond).encode("aéa")], [0, 0]);
});

test("text without tokens is encoded as bytes", (t) => {
  const tokens = [
    ["<unk>", 0, 2],
    ["<0xC3>", 0, 6],
    ["<0xA9>", 0, 6],
    ["a", 0, 1],
  ] as const;
  const tokenizer = tokenizerIn(sentencePieceFile(tokens));
  t.deepEqual([...tokenizer.encode("éa")], [1, 2, 3]);
  t.is(tokenizer.decode([1, 2, 3]), "éa");
});

test("the better score is merged first, and on a tie the longer left part", (t) => {
  const letters = [
    ["a", 0, 1],
    ["b", 0, 1],
    ["c", 0, 1],
    ["d", 0, 1],
  ] as const;
  const ids = (...tokens: [string, number, number][]): number[] => [
    ...tokenizerIn(sentencePieceFile([...letters, ...tokens])).encode("abc"),
  ];
  t.deepEqual(ids(["ab", -2, 1], ["bc", -1, 1]), [0, 5]);
  t.deepEqual(ids(["ab", -1, 1], ["bc", -2, 1]), [4, 2]);
  t.deepEqual(
    [
      ...tokenizerIn(sentencePieceFile([...letters, ["bc", -1, 1], ["abc", -2, 1], ["bcd", -2, 1]])).encode(
        "abcd",
      ),
    ],
    [0, 6],
  );
  // 0 and -0 are the same score.
  for (const [left, right] of [
    [0, -0],
    [-0, 0],
  ] as const)
    t.deepEqual(ids(["ab", left, 1], ["bc", right, 1]), [4, 2]);
  // NaN has a rank, too.
  t.deepEqual(ids(["ab", NaN, 1], ["bc", -1, 1], ["abc", NaN, 1]), [6]);
  t.deepEqual(ids(["abc", -3, 1], ["ab", -1, 1], ["bc", -2, 1]), [4]);
});

test("of several tokens with the same text the last one's id is used", (t) => {
  const tokens = [
    ["a", 0, 1],
    ["b", 0, 1],
    ["ab", -1, 1],
    ["b", 0, 1],
    ["</s>", 0, 3],
    ["</s>", 0, 3],
  ] as const;
  const tokenizer = tokenizerIn(
    sentencePieceFile(tokens, {
      metadata: { "tokenizer.ggml.eos_token_id": 4, "tokenizer.ggml.add_eos_token": true },
    }),
  );
  t.deepEqual([...tokenizer.encode("bab</s>")], [3, 2, 5, 5]);
  // Whether the text is special depends on the last token.
  const plain = tokenizerIn(
    sentencePieceFile([
      ["<x>", 0, 3],
      ["<", 0, 1],
      ["x", 0, 1],
      [">", 0, 1],
      ["<x>", 0, 1],
    ] as const),
  );
  t.deepEqual([...plain.encode("<x>")], [1, 2, 3]);
});

test("user-defined tokens are found in texts, and are not special", (t) => {
  const tokens = [
    ["a", 0, 1],
    ["<x>", 0, 4],
    ["<y>", 0, 3],
    ["<", 0, 1],
    ["x", 0, 1],
    [">", 0, 1],
    ["<z>", 0, 1],
  ] as const;
  const tokenizer = tokenizerIn(
    sentencePieceFile(tokens, { metadata: { "tokenizer.ggml.padding_token_id": 6 } }),
  );
  t.deepEqual([...tokenizer.encode("a<x><y>a<z>")], [0, 1, 2, 0, 6]);
  t.is(tokenizer.decode([0, 1, 2, 0, 6]), "a<x>a");
  t.is(tokenizer.decode([0, 1, 2, 0, 6], { skipSpecialTokens: false }), "a<x><y>a<z>");
});

test("Gemma's runs of spaces are tokens, and merges follow the order of the tokens", (t) => {
  const tokens = [
    ["▁", 0, 1],
    ["a", 0, 1],
    ["b", 0, 1],
    ["ab", -9, 1],
    ["  ", 0, 1],
    ["ba", 9, 1],
  ] as const;
  const tokenizer = tokenizerIn(sentencePieceFile(tokens, {}, "gemma3"));
  t.deepEqual([...tokenizer.encode("aba")], [3, 1]);
  t.deepEqual([...tokenizer.encode("a  b")], [1, 4, 2]);
});

test("a piece that is itself a token is not split, for any merges, if the pre-tokenizer says so", (t) => {
  const of = (pre: string): number[] => {
    const tokenizer = tokenizerOf({
      model: "gpt2",
      pre,
      tokens: ["a", "b", "c", "ab", "abc"],
      merges: ["a b"],
    });
    return [...tokenizer.encode("abc", { addSpecialTokens: false })];
  };
  t.deepEqual(of("llama-bpe"), [4]);
  t.deepEqual(of("gpt-2"), [3, 2]);
});

test("merges that contain spaces, and one that begins like a comment", (t) => {
  const tokenizer = tokenizerOf({
    model: "gpt2",
    tokens: ["#version", "x", "#versionx", " ", "y", " y"],
    merges: ["#version x", "  y"],
  });
  const { model } = JSON.parse(tokenizer.readSource().text) as { model: { merges: string[][] } };
  t.deepEqual(model.merges, [
    ["#version", "x"],
    [" ", "y"],
  ]);
});

test("an unusable vocabulary is one error", (t) => {
  const refused = (metadata: Record<string, unknown>, message: RegExp): void => {
    const path = sentencePieceFile([["a", 0, 1]], { metadata: metadata as Record<string, number> });
    const error = t.throws(() => tokenizerIn(path), { code: "ERR_FILE_FORMAT" });
    t.regex(error.message, message);
    t.true(error.message.startsWith(`${path}: `));
  };
  refused({ "tokenizer.ggml.tokens": 3 }, /tokens must be a list of texts$/);
  refused({ "tokenizer.ggml.tokens": [1, 2] }, /tokens must be a list of texts$/);
  refused({ "tokenizer.ggml.token_type": ["a"] }, /token_type must be a list of numbers$/);
  refused({ "tokenizer.ggml.token_type": [1, 1] }, /token_type must be of 1 tokens, and is of 2$/);
  refused({ "tokenizer.ggml.scores": "a" }, /scores must be a list of numbers$/);
  refused(
    { "tokenizer.ggml.merges": ["aa"] },
    /merges must be pairs with a space between, and number 0 is "aa"$/,
  );
  refused({ "tokenizer.ggml.merges": [" a"] }, /merges must be pairs .* number 0 is " a"$/);
  const letters = [
    ["a", 0, 1],
    ["aa", 0, 1],
  ] as const;
  const second = sentencePieceFile(letters, { metadata: { "tokenizer.ggml.merges": ["a a", "a "] } });
  t.throws(() => tokenizerIn(second), { message: /merges must be pairs .* number 1 is "a "$/ });
  refused({ "tokenizer.ggml.merges": [""] }, /merges must be pairs .* number 0 is ""$/);
  // Also for texts longer than any token.
  refused({ "tokenizer.ggml.merges": ["a a"] }, /no tokenizer is made of it: Token `aa` out of vocabulary$/);
});

test("loading a vocabulary creates no JavaScript strings", (t) => {
  const tokens = Array.from({ length: 60_000 }, (_, i) => `token${i}`);
  const path = sentencePieceFile(tokens.map((token, i) => [token, -i, 1] as const));
  globalThis.gc?.();
  const before = process.memoryUsage().heapTotal;
  const tokenizer = tokenizerIn(path);
  t.is(tokenizer.vocabSize, tokens.length);
  const grown = process.memoryUsage().heapTotal - before;
  // The texts alone would be 3 MB, and arrays of pairs ten times as much.
  t.true(grown < 2 ** 20, `${grown} bytes`);
});

test("a file has one digest of its metadata, and another of its tokenizer", async (t) => {
  const plain = [
    ["a", 0, 1],
    ["b", 0, 1],
  ] as const;
  const digests = (tokens: Parameters<typeof sentencePieceFile>[0], name: string) =>
    digestMetadata(sentencePieceFile(tokens, { metadata: { "general.name": name } }));
  const first = await digests(plain, "x");
  t.deepEqual(await digests(plain, "x"), first);
  const named = await digests(plain, "y");
  t.is(named.tokenizer, first.tokenizer);
  t.not(named.model, first.model);
  const other = await digests(
    [
      ["a", 0, 1],
      ["c", 0, 1],
    ],
    "x",
  );
  t.not(other.tokenizer, first.tokenizer);
  t.is(other.model, first.model);
  const bare = await digestMetadata(ggufModelFile("llama", "f32", { size: 32 }));
  t.is(bare.tokenizer, undefined);
  await t.throwsAsync(digestMetadata(join(temporary(), "none.gguf")), { code: "ERR_FILE_NOT_FOUND" });
});
