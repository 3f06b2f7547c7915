/** A tokenizer's vocabulary as GGUF: tokens, scores, merges, pre-tokenizers, and tokenizers that llama.cpp lacks. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

import test, { type ExecutionContext } from "ava";

import { LlamaForCausalLM, loadModel, manualSeed, saveModel } from "../../src/index.js";
import { recognisePreTokenizer } from "../../src/gguf/export/pre-tokenizer.js";
import { convertVocabulary } from "../../src/gguf/export/vocabulary.js";
import { locateDefaultModel } from "../../src/models/default.js";
import { addedToken } from "../added-token.js";
import { readGguf } from "./file.js";
import { temporary } from "../hashed.js";

const device = "cpu";

/** Creates a folder with a tiny Llama and another tokenizer.json. */
function withTokenizer(json: object, config: object | undefined, vocabulary: number): string {
  manualSeed(1);
  const folder = temporary();
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(json));
  if (config !== undefined) writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify(config));
  return join(folder, String(vocabulary));
}

const BYTES = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`);

/** Returns a SentencePiece tokenizer: bytes, a few letters, and merges. */
function spm(
  changes: Record<string, unknown> = {},
  model: Record<string, unknown> = {},
): Record<string, unknown> {
  const tokens = ["<unk>", "<s>", "</s>", ...BYTES, "▁", "a", "b", "▁a", "ab", "▁ab"];
  return {
    version: "1.0",
    added_tokens: [addedToken(0, "<unk>"), addedToken(1, "<s>"), addedToken(2, "</s>")],
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Prepend", prepend: "▁" },
        { type: "Replace", pattern: { String: " " }, content: "▁" },
      ],
    },
    pre_tokenizer: null,
    post_processor: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
      ],
    },
    model: {
      type: "BPE",
      unk_token: "<unk>",
      fuse_unk: true,
      byte_fallback: true,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: [
        ["a", "b"],
        ["▁", "a"],
        ["▁", "ab"],
        ["▁a", "b"],
      ],
      ...model,
    },
    ...changes,
  };
}

async function keysWith(json: object, config?: object, vocabulary = 300): Promise<Record<string, unknown>> {
  const folder = dirname(withTokenizer(json, config, vocabulary));
  const model = LlamaForCausalLM.fromConfig(
    {
      vocab_size: vocabulary,
      hidden_size: 32,
      intermediate_size: 32,
      num_hidden_layers: 1,
      num_attention_heads: 2,
    },
    { device },
  );
  const whole = join(folder, "whole");
  await saveModel(model, whole);
  model.dispose();
  for (const name of ["tokenizer.json", "tokenizer_config.json"])
    if (existsSync(join(folder, name))) writeFileSync(join(whole, name), readFileSync(join(folder, name)));
  const loaded = await loadModel(whole, { device });
  try {
    const path = join(temporary(), "model.gguf");
    await saveModel(loaded, path);
    return readGguf(path).keys;
  } finally {
    loaded.dispose();
  }
}

test("a SentencePiece tokenizer: tokens, scores by rank, bytes, unused rows", async (t) => {
  const template = {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 1 } }],
    special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
  };
  const tokens = spm({
    post_processor: template,
    added_tokens: [
      addedToken(0, "<unk>"),
      addedToken(1, "<s>"),
      addedToken(2, "</s>"),
      addedToken(265, "<|x|>", { special: false }),
    ],
  });
  const special = {
    bos_token: "<s>",
    eos_token: { content: "</s>" },
    unk_token: "<unk>",
    chat_template: "{{ messages }}",
  };
  const keys = await keysWith(tokens, special);
  const list = keys["tokenizer.ggml.tokens"] as string[];
  t.deepEqual(
    [list.length, list[3], list[260], list[265], list[266]],
    [300, "<0x00>", "a", "<|x|>", "[PAD266]"],
  );
  t.is(keys["tokenizer.ggml.model"], "llama");
  t.is(keys["tokenizer.ggml.pre"], "default");
  t.deepEqual(
    (keys["tokenizer.ggml.scores"] as number[]).slice(258, 267),
    [0, 0, 0, 0, -2, -1, -3, 0, -10_000].slice(0, 9),
  );
  const kinds = keys["tokenizer.ggml.token_type"] as number[];
  t.deepEqual([kinds[0], kinds[1], kinds[3], kinds[260], kinds[265], kinds[266]], [2, 3, 6, 1, 4, 5]);
  t.like(keys, {
    "tokenizer.ggml.add_space_prefix": true,
    "tokenizer.ggml.add_bos_token": true,
    "tokenizer.ggml.add_eos_token": false,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.chat_template": "{{ messages }}",
  });
  // The start token that the tokenizer adds overrides `bos_token` in a configuration.
  t.is((await keysWith(tokens, { ...special, bos_token: "</s>" }))["tokenizer.ggml.bos_token_id"], 1);
  const metaspace = { type: "Metaspace", replacement: "▁", prepend_scheme: "never", split: false };
  t.is(
    (await keysWith(spm({ normalizer: null, pre_tokenizer: metaspace })))["tokenizer.ggml.add_space_prefix"],
    false,
  );
});

const odd: [what: string, json: Record<string, unknown>, message: RegExp, rows?: number][] = [
  [
    "no tokens for bytes",
    spm({}, { byte_fallback: false }),
    /the tokenizer of .* cannot be written.*llama\.cpp's tokenizers/,
  ],
  ["another normalizer", spm({ normalizer: { type: "NFKC" } }), /llama\.cpp's tokenizers/],
  [
    "merges that are missing",
    spm(
      {},
      {
        merges: [
          ["a", "b"],
          ["▁", "a"],
          ["▁", "ab"],
        ],
      },
    ),
    /which lacks merges to "▁ab"/,
  ],
  [
    "merges to one token that differ in rank",
    spm(
      {},
      {
        merges: [
          ["▁", "a"],
          ["▁a", "b"],
          ["a", "b"],
          ["▁", "ab"],
        ],
      },
    ),
    /whose merges to "▁ab" differ in rank/,
  ],
  ["more tokens than rows", spm(), /token 264 \("▁ab"\) of .*, with 264 rows/, 264],
  [
    "two ids of one text",
    spm({
      added_tokens: [
        addedToken(0, "<unk>"),
        addedToken(1, "<s>"),
        addedToken(2, "</s>"),
        addedToken(270, "[PAD271]"),
      ],
    }),
    /"\[PAD271\]" of .*, which has two ids/,
  ],
];

for (const [what, json, message, rows] of odd) {
  test(`refused of a tokenizer: ${what}`, async (t) => {
    await t.throwsAsync(keysWith(json, undefined, rows), { code: "ERR_OPTION", message });
  });
}

test("byte-level BPE: the embedded model's tokens and merges are unchanged", async (t) => {
  const model = await loadModel(locateDefaultModel(), { device });
  const path = join(temporary(), "model.gguf");
  await saveModel(model, path, { dtype: "q4_0" });
  const { keys, tensors } = readGguf(path);
  const { model: own } = JSON.parse(readFileSync(join(locateDefaultModel(), "tokenizer.json"), "utf8")) as {
    model: { vocab: Record<string, number>; merges: [string, string][] };
  };
  t.is(keys["tokenizer.ggml.model"], "gpt2");
  t.is(keys["tokenizer.ggml.pre"], "gpt-2");
  t.deepEqual(
    keys["tokenizer.ggml.merges"],
    own.merges.map((pair) => pair.join(" ")),
  );
  const list = keys["tokenizer.ggml.tokens"] as string[];
  t.deepEqual(
    Object.entries(own.vocab).filter(([token, id]) => list[id] !== token),
    [],
  );
  t.is((keys["tokenizer.ggml.token_type"] as number[])[0], 3);
  t.is(keys["tokenizer.ggml.add_bos_token"], false);
  t.is(keys["tokenizer.ggml.eos_token_id"], 0);
  t.is(tensors["token_embd.weight"]?.type, "Q4_0");
  model.dispose();
});

test("pre-tokenizers are recognised by their structure", (t) => {
  const bytes = (use_regex: boolean): object => ({
    type: "ByteLevel",
    add_prefix_space: false,
    trim_offsets: true,
    use_regex,
  });
  const split = (Regex: string, more: object = { behavior: "Isolated", invert: false }): object => ({
    type: "Sequence",
    pretokenizers: [{ type: "Split", pattern: { Regex }, ...more }, bytes(false)],
  });
  const digits = {
    type: "Sequence",
    pretokenizers: [{ type: "Digits", individual_digits: true }, bytes(true)],
  };
  const llama = String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
  const qwen = llama.replace("{1,3}", "");
  const tekken = String.raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
  const gpt4o = String.raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
  const qwen35 = String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
  const cases: [object, boolean, string | undefined][] = [
    [bytes(true), false, "gpt-2"],
    [bytes(true), true, undefined],
    [bytes(false), false, undefined],
    [{ ...bytes(true), add_prefix_space: true }, false, undefined],
    [digits, false, "smollm"],
    [digits, true, undefined],
    [split(llama), true, "llama-bpe"],
    [split(llama), false, "dbrx"],
    [split(llama, { behavior: "Removed", invert: true }), false, "dbrx"],
    [split(llama, { behavior: "Removed", invert: false }), false, undefined],
    [split(qwen), false, "qwen2"],
    [split(qwen), true, undefined],
    [split(qwen35), false, "qwen35"],
    [split(gpt4o), false, "gpt-4o"],
    [split(tekken), true, "tekken"],
    [split(tekken), false, undefined],
    [split(String.raw`\p{L}+`), false, undefined],
    [split("constructor"), false, undefined],
  ];
  for (const [one, ignores, name] of cases)
    t.is(recognisePreTokenizer(one, ignores), name, JSON.stringify(one));
});

const unusual: [what: string, json: (own: Record<string, unknown>) => object, message: RegExp][] = [
  [
    "another pattern",
    (own) => ({
      ...own,
      pre_tokenizer: { type: "Sequence", pretokenizers: [{ type: "Punctuation" }, own["pre_tokenizer"]] },
    }),
    /the pre-tokenizer of .*Punctuation.* llama\.cpp identifies pre-tokenizers by name/,
  ],
  [
    "another normalizer of bytes",
    (own) => ({ ...own, normalizer: { type: "NFKC" } }),
    /the normalizer NFKC of/,
  ],
];

for (const [what, change, message] of unusual) {
  test(`refused of a byte-level tokenizer: ${what}`, async (t: ExecutionContext) => {
    const own = JSON.parse(readFileSync(join(locateDefaultModel(), "tokenizer.json"), "utf8")) as Record<
      string,
      unknown
    >;
    await t.throwsAsync(keysWith(change(own), undefined, 2048), { code: "ERR_OPTION", message });
  });
}

test("an NFC normalizer is ignored, since texts are assumed to be in NFC", async (t) => {
  const own = JSON.parse(readFileSync(join(locateDefaultModel(), "tokenizer.json"), "utf8")) as Record<
    string,
    unknown
  >;
  t.is(
    (await keysWith({ ...own, normalizer: { type: "NFC" } }, undefined, 2048))["tokenizer.ggml.pre"],
    "gpt-2",
  );
});

test("a pattern that llama.cpp implements differently causes a notice", async (t) => {
  const own = JSON.parse(readFileSync(join(locateDefaultModel(), "tokenizer.json"), "utf8")) as Record<
    string,
    unknown
  >;
  const Regex = String.raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
  const pretokenizers = [
    { type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false },
    { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
  ];
  const text = JSON.stringify({ ...own, pre_tokenizer: { type: "Sequence", pretokenizers } });
  const said: string[] = [];
  const keys = new Map(convertVocabulary("m.gguf", "tokenizer.json", text, 2048, (one) => said.push(one)));
  t.deepEqual(keys.get("tokenizer.ggml.pre"), { text: "gpt-4o" });
  t.regex(said.join("\n"), /m\.gguf: llama\.cpp's pattern gpt-4o splits before combining marks/);
});

test("runs of spaces that are added tokens, as in Gemma, are written as spaces, for any merges", async (t) => {
  const runs = ["▁▁", "▁▁▁", "▁▁▁▁"];
  const { model } = spm() as { model: { vocab: Record<string, number>; merges: string[][] } };
  const vocab = { ...model.vocab, ...Object.fromEntries(runs.map((run, i) => [run, 265 + i])) };
  // SentencePiece gives them one score, so their order is mixed.
  const merges = [
    ...model.merges,
    ["▁▁▁", "▁"],
    ["▁▁", "▁"],
    ["▁▁", "▁▁"],
    ["▁", "▁▁▁"],
    ["▁", "▁▁"],
    ["▁", "▁"],
  ];
  const added_tokens = ["<unk>", "<s>", "</s>"].map((token, id) => addedToken(id, token));
  const json = {
    ...spm({}, { vocab, merges }),
    added_tokens: [...added_tokens, ...runs.map((run, i) => addedToken(265 + i, run, { special: false }))],
    normalizer: { type: "Replace", pattern: { String: " " }, content: "▁" },
    pre_tokenizer: { type: "Split", pattern: { String: " " }, behavior: "MergedWithPrevious", invert: false },
  };
  const keys = await keysWith(json);
  t.deepEqual((keys["tokenizer.ggml.tokens"] as string[]).slice(264, 268), ["▁ab", "  ", "   ", "    "]);
  t.deepEqual((keys["tokenizer.ggml.token_type"] as number[]).slice(264, 268), [1, 4, 4, 4]);
  t.is(keys["tokenizer.ggml.add_space_prefix"], false);
});

test("a merge whose result is no token is named", (t) => {
  const tokens = ["<unk>", "<s>", "</s>", ...BYTES, "▁", "a", "b"];
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  const json = JSON.stringify(spm({}, { merges: [["b", "a"]], vocab }));
  t.throws(() => convertVocabulary("m.gguf", "tokenizer.json", json, 300, () => {}), {
    code: "ERR_FILE_FORMAT",
    message: 'tokenizer.json: "ba" is the result of a merge, but has no id',
  });
});
