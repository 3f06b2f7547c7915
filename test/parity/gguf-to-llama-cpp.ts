/**
 * GGUF files written by lowrank, as loaded by llama.cpp and by transformers (README.md): `tsx gguf-to-llama-cpp.ts
 * PYTHON [llama.cpp|transformers]`, where PYTHON is the interpreter of an environment with requirements.txt, and
 * for llama.cpp with llama-cpp-python. Prints the relative difference of the logits. Fails if it is above the
 * bounds below, or if greedy tokens or the tokenization of a text differ.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { loadModel, lora, noGrad, saveModel, scope, tensor, type CausalLM } from "../../src/index.js";
import { collectAdapterState } from "../../src/lora/formats/state.js";
import { locateDefaultModel } from "../../src/models/default.js";
import { goldenModel, hashed, temporary } from "../hashed.js";
import { error, goldens } from "./goldens.js";

const [python, only] = process.argv.slice(2);
if (python === undefined) throw new Error("usage: tsx gguf-to-llama-cpp.ts PYTHON [llama.cpp|transformers]");

/**
 * llama.cpp sums in f32 in another order. Its GELU, of GPT-2 and Gemma, reads a table in f16: an error of 2⁻¹¹ of
 * each activation, over the layers of these models.
 */
const BOUND = 1e-3;
const GREEDY = 64;

interface Answer {
  logits?: number[][];
  tokens?: number[][];
  greedy?: number[];
}

interface Request {
  model: string;
  adapter?: string | undefined;
  ids?: number[];
  texts?: string[];
  greedy?: number;
}

const script = fileURLToPath(new URL("gguf_logits.py", import.meta.url));
const work = temporary();
let failures = 0;

function asked(by: string, request: Request): Answer {
  const [from, to] = [join(work, "request.json"), join(work, "answer.json")];
  writeFileSync(from, JSON.stringify(request));
  const run = spawnSync(python as string, [script, by, from, to], { encoding: "utf8", maxBuffer: 1 << 28 });
  if (run.status !== 0)
    throw new Error(`${request.model} by ${by}: ${run.stderr.trim().split("\n").slice(-6).join("\n")}`);
  return JSON.parse(readFileSync(to, "utf8")) as Answer;
}

function report(name: string, holds: boolean, figures: string): void {
  if (!holds) failures++;
  console.log(`${holds ? "  " : "✘ "}${name}: ${figures}`);
}

async function ourLogits(model: CausalLM, ids: number[]): Promise<Float32Array> {
  const out = scope(() =>
    noGrad(() => model.forward(tensor(ids, { shape: [1, ids.length], dtype: "i32", device: "cpu" })).logits),
  );
  const data = (await out.data()) as Float32Array;
  out.dispose();
  return data;
}

/** Returns greedy tokens, each from the logits of the whole text. */
async function ourGreedy(model: CausalLM, ids: number[], count: number): Promise<number[]> {
  const all = [...ids];
  const { vocabSize } = model.config;
  for (let n = 0; n < count; n++) {
    const logits = (await ourLogits(model, all)).subarray(-vocabSize);
    all.push(logits.reduce((best, value, i) => (value > (logits[best] as number) ? i : best), 0));
  }
  return all.slice(ids.length);
}

async function compare(name: string, model: CausalLM, request: Request, by: string): Promise<void> {
  const ids = request.ids as number[];
  const ours = await ourLogits(model, ids);
  let answer: Answer;
  try {
    answer = asked(by, { ...request, ids });
  } catch (failure) {
    report(`${name} by ${by}`, false, (failure as Error).message);
    return;
  }
  const apart = error((answer.logits as number[][]).flat(), ours);
  const greedy = request.greedy === undefined ? [] : await ourGreedy(model, ids, request.greedy);
  const same = greedy.every((token, i) => token === answer.greedy?.[i]);
  const said = greedy.length > 0 ? `, ${greedy.length} greedy tokens ${same ? "the same" : "differ"}` : "";
  report(`${name} by ${by}`, apart < BOUND && same, `${apart.toExponential(1)}${said}`);
}

/** Randomises adapters so that they have an effect. */
function drawAdapter(model: CausalLM): void {
  noGrad(() =>
    scope(() => {
      for (const [key, one] of collectAdapterState(model, "default"))
        if (!key.endsWith(".base_layer.weight"))
          one.copy(tensor(hashed(key, one.shape), { shape: one.shape, device: "cpu" }));
    }),
  );
}

interface Case {
  golden: string;
  overrides?: Record<string, unknown>;
  length?: number;
  adapters?: Record<string, lora.InjectOptions>;
  /** A feature that transformers does not read from a GGUF file. */
  unread?: string;
}

const plain = { rope_parameters: { rope_type: "default", rope_theta: 10_000 } };
const adapters: Record<string, lora.InjectOptions> = {
  "all-linear": { r: 3, loraAlpha: 5, targetModules: "all-linear" },
  rslora: { r: 4, loraAlpha: 6, targetModules: "all-linear", useRslora: true },
  "patterns of rank and alpha": {
    r: 2,
    loraAlpha: 4,
    targetModules: "all-linear",
    rankPattern: { "layers.1.*": 4, "h.1.*": 4 },
    alphaPattern: { ".*o_proj": 9, ".*c_proj": 9 },
  },
};
const untied = {
  ...adapters,
  "embedding and head": {
    r: 2,
    loraAlpha: 5,
    targetModules: ["embed_tokens", "lm_head", "q_proj", "qkv_proj"],
  },
};
const cases: Record<string, Case> = {
  "Llama, tied": { golden: "llama-tied", adapters },
  "Llama 3, biases": {
    golden: "llama-untied-llama3",
    length: 60,
    adapters: untied,
    unread: "llama3's rotation and biases",
  },
  "Llama, linear": { golden: "llama-linear", unread: "linear rotation" },
  Mistral: { golden: "llama-mistral", overrides: { sliding_window: null }, adapters: untied },
  "Qwen2, yarn": {
    golden: "llama-qwen2",
    overrides: { use_sliding_window: false },
    length: 60,
    adapters,
    unread: "yarn",
  },
  "Qwen2, yarn with a factor": {
    golden: "llama-qwen2",
    overrides: {
      use_sliding_window: false,
      rope_scaling: { type: "yarn", factor: 4, original_max_position_embeddings: 32, attention_factor: 1.3 },
    },
    length: 60,
    unread: "yarn",
  },
  Qwen2: { golden: "llama-qwen2", overrides: { use_sliding_window: false, rope_scaling: null } },
  Qwen3: {
    golden: "llama-qwen3",
    overrides: plain,
    adapters: untied,
    unread: "another size of heads than 128",
  },
  "Gemma 3": {
    golden: "llama-gemma3",
    overrides: { query_pre_attn_scalar: 16 },
    length: 40,
    adapters,
    unread: "the pattern of windows",
  },
  "Gemma 3, capped": {
    golden: "llama-gemma3-capped",
    overrides: { query_pre_attn_scalar: 16 },
    length: 40,
    unread: "the cap",
  },
  "Gemma 3, six layers": {
    golden: "llama-gemma3",
    overrides: {
      query_pre_attn_scalar: 16,
      sliding_window_pattern: 6,
      num_hidden_layers: 7,
      rope_scaling: null,
    },
    length: 40,
    unread: "the root that scores are divided by",
  },
  // llama.cpp's smallest context is 256, which determines the factors.
  "Phi-3, short factors": {
    golden: "llama-phi3",
    overrides: { sliding_window: null, original_max_position_embeddings: 256, max_position_embeddings: 512 },
    adapters: untied,
    unread: "longrope",
  },
  "Phi-3, long factors": {
    golden: "llama-phi3-long",
    overrides: { original_max_position_embeddings: 16 },
    unread: "longrope",
  },
  "Phi-3, plain": {
    golden: "llama-phi3",
    overrides: { sliding_window: null, rope_scaling: null },
    unread: "a padding token below its own default",
  },
  "GPT-2": { golden: "families/gpt2", adapters, length: 20, unread: "other sizes than GPT-2's own" },
};

async function small(
  name: string,
  { golden, overrides, length = 24, adapters: own = {}, unread }: Case,
): Promise<void> {
  const folder = goldenModel(join(goldens, golden), overrides);
  const load = (): Promise<CausalLM> => loadModel<"causal-lm">(folder, { device: "cpu" });
  const model = await load();
  const path = join(temporary(), "model.gguf");
  await saveModel(model, path, { dtype: "f32", onNotice: () => {} });
  const ids = Array.from({ length }, (_, i) => (i * 31 + 7) % 97);
  if (only !== "llama.cpp" && unread === undefined)
    await compare(name, model, { model: path, ids }, "transformers");
  if (only !== "transformers") await compare(name, model, { model: path, ids }, "llama.cpp");
  model.dispose();
  if (only === "transformers") return;
  for (const [called, options] of Object.entries(own)) {
    const adapted = await load();
    await lora.inject(adapted, options);
    drawAdapter(adapted);
    const [saved, adapter] = [temporary(), join(temporary(), "adapter.gguf")];
    await lora.saveAdapter(adapted, saved);
    await lora.convertAdapter(saved, adapter, { format: "gguf", model: adapted });
    await compare(`${name}, adapter ${called}`, adapted, { model: path, adapter, ids }, "llama.cpp");
    adapted.dispose();
  }
}

/** llama.cpp's variants of two patterns split before combining marks; saveModel gives notice of this. */
const MARKS = "e\u0301te\u0301 \u0915\u094d\u0937";
const APART = ["gpt-4o", "tekken"];

const TEXTS = [
  "Once upon a time, there was a little girl named Lily.",
  "  two spaces, a\ttab\nand lines\n\n\nend ",
  "Größe, naïve café, 数据 и текст 🦙🦙 3 33 3333 1,234.5",
  "'tis don't I'LL we've ... !!! <s> </s> </i>",
  "CamelCase HTTPServer's ISN'T x1y22z333 12345678 a/b//\n/c\r\n\r\n  \u00a0\u3000 ﬀ ǅ",
  MARKS,
  "",
  "a",
];

/** Checks a model with a tokenizer: its texts, logits and greedy tokens, and an adapter of it. */
async function whole(name: string, folder: string, prompt: string): Promise<void> {
  const load = (): Promise<CausalLM> => loadModel<"causal-lm">(folder, { device: "cpu" });
  const model = await load();
  const path = join(temporary(), "model.gguf");
  await saveModel(model, path, { dtype: "f32" });
  const { tokenizer } = model;
  if (tokenizer === undefined) throw new Error(`${folder} has no tokenizer`);
  const ids = [...tokenizer.encode(prompt)];
  if (only !== "llama.cpp") await compare(name, model, { model: path, ids }, "transformers");
  if (only === "transformers") return model.dispose();
  const { tokens = [] } = asked("llama.cpp", { model: path, texts: TEXTS });
  for (const [i, text] of TEXTS.entries()) {
    const own = [...tokenizer.encode(text)];
    const same = own.join() === tokens[i]?.join();
    report(
      `${name}, tokens of ${JSON.stringify(text)}`,
      same,
      same ? `${own.length}` : `${own.join(" ")} | ${tokens[i]?.join(" ")}`,
    );
  }
  await compare(name, model, { model: path, ids, greedy: GREEDY }, "llama.cpp");
  model.dispose();
  const adapted = await load();
  await lora.inject(adapted, { r: 4, loraAlpha: 6, targetModules: "all-linear", useRslora: true });
  drawAdapter(adapted);
  const [saved, adapter] = [temporary(), join(temporary(), "adapter.gguf")];
  await lora.saveAdapter(adapted, saved);
  await lora.convertAdapter(saved, adapter, { format: "gguf" });
  await compare(`${name}, adapter`, adapted, { model: path, adapter, ids, greedy: GREEDY }, "llama.cpp");
  await lora.mergeAndUnload(adapted);
  const merged = join(temporary(), "merged.gguf");
  await saveModel(adapted, merged, { dtype: "f32" });
  await compare(`${name}, merged`, adapted, { model: merged, ids, greedy: GREEDY }, "llama.cpp");
  adapted.dispose();
}

/** Patterns of models' tokenizers, and whether whole words of the vocabulary take precedence over merges. */
const LLAMA3 = String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
const [UPPER, LOWER] = [String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`, String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`];
const BEFORE = String.raw`[^\r\n\p{L}\p{N}]?`;
const AFTER = String.raw`| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
const ENDS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?";
const patterns: Record<string, [step: object, ignoresMerges: boolean]> = {
  smollm: [{ type: "Digits", individual_digits: true }, false],
  "llama-bpe": [split(LLAMA3), true],
  dbrx: [split(LLAMA3), false],
  qwen2: [split(LLAMA3.replace("{1,3}", "")), false],
  qwen35: [
    split(
      LLAMA3.replace("{1,3}", "")
        .replace(String.raw`\p{L}+`, String.raw`[\p{L}\p{M}]+`)
        .replace(String.raw`^\s\p{L}`, String.raw`^\s\p{L}\p{M}`),
    ),
    false,
  ],
  "gpt-4o": [
    split(
      `${BEFORE}${UPPER}*${LOWER}+${ENDS}|${BEFORE}${UPPER}+${LOWER}*${ENDS}${String.raw`|\p{N}{1,3}`}${AFTER}`,
    ),
    false,
  ],
  tekken: [
    split(`${BEFORE}${UPPER}*${LOWER}+|${BEFORE}${UPPER}+${LOWER}*${String.raw`|\p{N}`}${AFTER}`),
    true,
  ],
};

function split(Regex: string): object {
  return { type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false };
}

/** Returns a text's bytes as the letters that represent them in byte-level vocabularies. */
function byteLetters(text: string): string[] {
  const plain = (byte: number): boolean => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  const others = Array.from({ length: 256 }, (_, byte) => byte).filter((byte) => !plain(byte));
  return Array.from(new TextEncoder().encode(text), (byte) =>
    String.fromCharCode(plain(byte) ? byte : 256 + others.indexOf(byte)),
  );
}

/**
 * Checks the embedded model with a vocabulary of bytes and of all pairs in the texts, which merge unless the
 * pattern splits them.
 */
async function cuts(name: string, step: object, ignoresMerges: boolean): Promise<void> {
  const folder = temporary();
  for (const file of ["config.json", "model.safetensors"])
    copyFileSync(join(locateDefaultModel(), file), join(folder, file));
  const json = JSON.parse(readFileSync(join(locateDefaultModel(), "tokenizer.json"), "utf8")) as {
    pre_tokenizer: object;
    model: { ignore_merges: boolean; vocab: Record<string, number>; merges: string[][] };
  };
  const letters = Object.entries(json.model.vocab).filter(([, id]) => id <= 256);
  const pairs = TEXTS.flatMap((text) => byteLetters(text).map((one, i, all) => [one, all[i + 1] ?? ""]));
  const merges = [
    ...new Map(pairs.filter(([, b]) => b !== "").map((pair) => [pair.join(""), pair])).values(),
  ];
  json.model.merges = merges;
  json.model.vocab = Object.fromEntries([
    ...letters,
    ...merges.map((pair, i): [string, number] => [pair.join(""), 257 + i]),
  ]);
  const bytes = { ...json.pre_tokenizer, use_regex: "individual_digits" in step };
  json.pre_tokenizer = { type: "Sequence", pretokenizers: [step, bytes] };
  json.model.ignore_merges = ignoresMerges;
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(json));
  const model = await loadModel<"causal-lm">(folder, { device: "cpu" });
  const path = join(temporary(), "model.gguf");
  await saveModel(model, path, { onNotice: () => {} });
  const { tokens = [] } = asked("llama.cpp", { model: path, texts: TEXTS });
  for (const [i, text] of TEXTS.entries()) {
    const own = [...(model.tokenizer?.encode(text) ?? [])];
    const same = own.join() === tokens[i]?.join();
    if (text === MARKS && APART.includes(name)) continue;
    const figures = same ? `${own.length}` : `${own.join(" ")} | ${tokens[i]?.join(" ")}`;
    report(`cut as ${name}: tokens of ${JSON.stringify(text)}`, same, figures);
  }
  model.dispose();
}

for (const [name, one] of Object.entries(cases)) await small(name, one);
if (only !== "transformers")
  for (const [name, [step, ignores]] of Object.entries(patterns)) await cuts(name, step, ignores);
await whole("the embedded model", locateDefaultModel(), "The whale");
const stories = process.env["LOWRANK_STORIES260K"];
if (stories !== undefined) await whole("stories260k", stories, "Once upon a time");
if (failures > 0) process.exitCode = 1;
