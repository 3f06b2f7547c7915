/** Tokenizers of GGUF files against those that they were written from (test/parity/gguf_tokenizers.py). */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { loadModel, saveModel, Tokenizer } from "../../src/index.js";
import { openGguf } from "../../src/gguf.js";
import { Metadata } from "../../src/models/gguf/metadata.js";
import { architectureOf } from "../../src/models/gguf/names.js";
import { tokenizerFiles, tokenizerOf } from "../../src/models/gguf/tokenizer.js";
import { ggufModelFile } from "../gguf-models.js";
import { temporary } from "../hashed.js";
import { goldens } from "../parity/goldens.js";

const folder = join(goldens, "gguf", "tokenizers");
const { texts, ids } = JSON.parse(readFileSync(join(folder, "ids.json"), "utf8")) as {
  texts: string[];
  ids: Record<string, number[][]>;
};

function opened(name: string): { meta: Metadata; tokenizer: Tokenizer } {
  const path = join(folder, `${name}.gguf`);
  const meta = new Metadata(openGguf(path), path);
  return { meta, tokenizer: tokenizerOf(path, tokenizerFiles(meta, architectureOf(meta)))! };
}

for (const [name, rows] of Object.entries(ids)) {
  test(`${name} gives the ids of its tokenizer`, async (t) => {
    const { tokenizer } = opened(name);
    for (const [i, expected] of rows.entries())
      t.deepEqual(Array.from(tokenizer.encode(texts[i]!)), expected, JSON.stringify(texts[i]));
    t.deepEqual(
      (await tokenizer.encodeAll(texts)).map((row) => Array.from(row)),
      rows,
    );
    for (const text of texts) {
      const back = tokenizer.decode(tokenizer.encode(text), { skipSpecialTokens: false });
      // SentencePiece puts a space before a text, or takes one off.
      if (!name.endsWith("spm")) t.true(back.endsWith(text), JSON.stringify(back));
      else t.is(back.replaceAll(/<s>|\s/g, ""), text.replaceAll(/\s/g, ""));
    }
  });
}

test("a file may say that no space goes before a text, and where special tokens go", (t) => {
  const { tokens, scores } = {
    tokens: ["<unk>", "<s>", "</s>", "▁", "a", "▁a"],
    scores: [0, 0, 0, -2, -3, -1.5],
  };
  const of = (more: Record<string, boolean>): Tokenizer => {
    const path = ggufModelFile("llama", "f32", {
      size: 32,
      metadata: {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": [2, 3, 3, 1, 1, 1],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        ...more,
      },
    });
    return tokenizerOf(path, tokenizerFiles(new Metadata(openGguf(path), path), "llama"))!;
  };
  const plain = of({});
  t.deepEqual([...plain.encode("a")], [1, 5]);
  t.deepEqual([...plain.encode("a</s>a")], [1, 5, 2, 4]);
  t.is(plain.decode([5, 4]), "aa");
  const bare = of({ "tokenizer.ggml.add_space_prefix": false, "tokenizer.ggml.add_bos_token": false });
  t.deepEqual([...bare.encode("a a")], [4, 5]);
  t.is(bare.decode([5]), " a");
  const ended = of({ "tokenizer.ggml.add_eos_token": true });
  t.deepEqual([...ended.encode("a")], [1, 5, 2]);
});

test("the chat template and the special tokens are the file's, and go along when the model is saved", async (t) => {
  const { meta } = opened("smollm");
  const metadata = Object.fromEntries(meta.all("tokenizer.").map(([key, value]) => [key, value as never]));
  const vocabulary = (meta.texts("tokenizer.ggml.tokens") ?? []).length;
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

test("SmolLM's digits stand alone, whatever merges there are", (t) => {
  const of = (pre: string): number[] => {
    const path = ggufModelFile("llama", "f32", {
      size: 32,
      metadata: {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": ["1", "2", "12"],
        "tokenizer.ggml.merges": ["1 2"],
      },
    });
    return [...tokenizerOf(path, tokenizerFiles(new Metadata(openGguf(path), path), "llama"))!.encode("12")];
  };
  t.deepEqual(of("smollm"), [0, 1]);
  t.deepEqual(of("gpt-2"), [2]);
});
