/** A tokenizer's vocabulary in the metadata of llama.cpp: the texts and kinds of all ids, and the merges. */
import { LowrankError } from "../../errors.js";
import { refuseGguf } from "../refusals.js";
import type { GgufValue } from "../writer.js";
import { recognisePreTokenizer, flattenSteps, type Json } from "./pre-tokenizer.js";

/** llama.cpp's token kinds. */
const KIND = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 };

/** Pre-tokenizers whose pattern in llama.cpp does not handle combining marks. */
const APART = new Set(["gpt-4o", "tekken"]);

interface Added {
  id: number;
  content: string;
  special: boolean;
}

/** The exported parts of `tokenizer.json`. */
interface Parsed {
  model: Json;
  json: Json;
  vocabulary: Map<string, number>;
  merges: [string, string][];
  added: Added[];
}

/**
 * Returns the keys of the vocabulary in a `tokenizer.json`, for `rows` tokens; ids without a token are unused. `file`
 * is the output's name in errors; `notice` reports texts that llama.cpp splits differently. Throws `ERR_OPTION` for a
 * tokenizer without a counterpart in llama.cpp, `ERR_FILE_FORMAT`.
 */
export function convertVocabulary(
  file: string,
  path: string,
  text: string,
  rows: number,
  notice: (text: string) => void,
): [string, GgufValue][] {
  const parsed = parse(path, text);
  const { model, json, merges } = parsed;
  const plain = (key: string): boolean => (model[key] ?? "") === "";
  if (model["type"] !== "BPE" || !plain("continuing_subword_prefix") || !plain("end_of_word_suffix"))
    refuseGguf("tokenizer", file, `the tokenizer of ${path} (${String(model["type"])})`);
  const byteLevel = flattenSteps(json["pre_tokenizer"], "pretokenizers").some(
    ({ type }) => type === "ByteLevel",
  );
  if (!byteLevel) return exportSentencePiece(file, path, parsed, rows);
  const normalizers = flattenSteps(json["normalizer"], "normalizers");
  // llama.cpp does not normalise; NFC is accepted, because nearly all texts are already NFC.
  const other = normalizers.find(({ type }) => type !== "NFC");
  if (other !== undefined)
    refuseGguf("tokenizer", file, `the normalizer ${String(other["type"])} of ${path}`);
  const pre = recognisePreTokenizer(json["pre_tokenizer"], model["ignore_merges"] === true);
  if (pre === undefined)
    refuseGguf("preTokenizer", file, `the pre-tokenizer of ${path} (${shorten(json["pre_tokenizer"])})`);
  if (APART.has(pre))
    notice(`${file}: llama.cpp's pattern ${pre} splits before combining marks; the tokenizer's does not`);
  const { tokens, kinds } = listTokens(file, path, parsed, rows, () => KIND.normal);
  return [
    ["tokenizer.ggml.model", { text: "gpt2" }],
    ["tokenizer.ggml.pre", { text: pre }],
    ["tokenizer.ggml.tokens", { texts: tokens }],
    ["tokenizer.ggml.token_type", { i32s: kinds }],
    ["tokenizer.ggml.merges", { texts: merges.map(([left, right]) => `${left} ${right}`) }],
  ];
}

/** Exports a SentencePiece vocabulary: spaces as ▁, tokens with scores, and byte tokens as the fallback. */
function exportSentencePiece(
  file: string,
  path: string,
  parsed: Parsed,
  rows: number,
): [string, GgufValue][] {
  const { model, json } = parsed;
  const unknown = model["unk_token"];
  const bytes = /^<0x[0-9A-F]{2}>$/;
  const complete = [...parsed.vocabulary.keys()].filter((token) => bytes.test(token)).length === 256;
  const prefix = findSpacePrefix(json);
  if (model["byte_fallback"] !== true || !complete || prefix === undefined)
    refuseGguf("tokenizer", file, `the tokenizer of ${path}`);
  const { tokens, kinds } = listTokens(file, path, parsed, rows, (token) =>
    bytes.test(token) ? KIND.byte : KIND.normal,
  );
  // llama.cpp looks up added tokens before it replaces spaces by ▁.
  for (const [id, kind] of kinds.entries())
    if (kind === KIND.userDefined) tokens[id] = (tokens[id] as string).replaceAll("▁", " ");
  const id = typeof unknown === "string" ? parsed.vocabulary.get(unknown) : undefined;
  if (id !== undefined) kinds[id] = KIND.unknown;
  const ranks = mergeRanks(file, path, parsed);
  const scores = kinds.map((kind): number => (kind === KIND.unused ? -10_000 : 0));
  for (const [token, rank] of ranks) {
    const tokenId = parsed.vocabulary.get(token);
    if (tokenId === undefined)
      throw new LowrankError(
        "ERR_FILE_FORMAT",
        `${path}: ${JSON.stringify(token)} is the result of a merge, but has no id`,
      );
    scores[tokenId] = -rank;
  }
  return [
    ["tokenizer.ggml.model", { text: "llama" }],
    ["tokenizer.ggml.pre", { text: "default" }],
    ["tokenizer.ggml.tokens", { texts: tokens }],
    ["tokenizer.ggml.scores", { f32s: scores }],
    ["tokenizer.ggml.token_type", { i32s: kinds }],
    ["tokenizer.ggml.add_space_prefix", { bool: prefix }],
  ];
}

/** Whether a space is prepended to texts; undefined where spaces do not become ▁, or other steps are applied. */
function findSpacePrefix(json: Json): boolean | undefined {
  const steps = [
    ...flattenSteps(json["normalizer"], "normalizers"),
    ...flattenSteps(json["pre_tokenizer"], "pretokenizers"),
  ];
  let [prefix, replaced] = [false, false];
  for (const step of steps) {
    const pattern = (step["pattern"] as Json | undefined)?.["String"];
    if (step["type"] === "Prepend" && step["prepend"] === "▁") prefix = true;
    else if (step["type"] === "Replace" && pattern === " " && step["content"] === "▁") replaced = true;
    else if (
      step["type"] === "Metaspace" &&
      (step["replacement"] ?? "▁") === "▁" &&
      step["split"] === false
    ) {
      prefix ||=
        (step["prepend_scheme"] ?? (step["add_prefix_space"] === false ? "never" : "always")) !== "never";
      replaced = true;
      // After spaces have become ▁, a split at spaces does nothing.
    } else if (!(step["type"] === "Split" && pattern === " " && replaced)) return undefined;
  }
  return replaced ? prefix : undefined;
}

/**
 * Ranks the merged tokens by their first merge. llama.cpp merges any two neighbours that form a token, by that token's
 * score alone. So every split of a token into two tokens has to be a merge, and the merges of a token must have
 * consecutive ranks, as in a vocabulary trained by SentencePiece. Throws `ERR_OPTION` for another vocabulary.
 */
function mergeRanks(file: string, path: string, { vocabulary, merges, added }: Parsed): Map<string, number> {
  const ranks = new Map<string, number>();
  const ways = new Map<string, number>();
  // Added tokens are matched before any merge.
  const apart = new Set(added.map(({ content }) => content));
  let last = "";
  for (const [left, right] of merges) {
    const token = left + right;
    if (apart.has(token)) continue;
    if (ranks.has(token) && token !== last)
      refuseGguf(
        "tokenizer",
        file,
        `the tokenizer of ${path}, whose merges to ${JSON.stringify(token)} differ in rank,`,
      );
    if (!ranks.has(token)) ranks.set(token, ranks.size + 1);
    ways.set(token, (ways.get(token) ?? 0) + 1);
    last = token;
  }
  for (const token of vocabulary.keys()) {
    if (apart.has(token) || /^<0x[0-9A-F]{2}>$/.test(token)) continue;
    const letters = [...token];
    let cuts = 0;
    for (let n = 1; n < letters.length; n++)
      if (vocabulary.has(letters.slice(0, n).join("")) && vocabulary.has(letters.slice(n).join(""))) cuts++;
    if (cuts !== (ways.get(token) ?? 0))
      refuseGguf(
        "tokenizer",
        file,
        `the tokenizer of ${path}, which lacks merges to ${JSON.stringify(token)},`,
      );
  }
  return ranks;
}

/** Lists the texts and kinds of ids 0 to `rows` − 1; `kindOf` returns the kind of a vocabulary token. */
function listTokens(
  file: string,
  path: string,
  { vocabulary, added }: Parsed,
  rows: number,
  kindOf: (token: string) => number,
): { tokens: string[]; kinds: number[] } {
  const tokens: (string | undefined)[] = Array.from({ length: rows }, () => undefined);
  const kinds = Array.from({ length: rows }, () => KIND.unused);
  const put = (id: number, token: string, kind: number): void => {
    if (id >= rows)
      refuseGguf("vocabulary", file, `token ${id} (${JSON.stringify(token)}) of ${path}, with ${rows} rows,`);
    tokens[id] = token;
    kinds[id] = kind;
  };
  for (const [token, id] of vocabulary) put(id, token, kindOf(token));
  for (const { id, content, special } of added) put(id, content, special ? KIND.control : KIND.userDefined);
  const complete = tokens.map((token, id) => token ?? `[PAD${id}]`);
  const seen = new Set<string>();
  for (const token of complete) {
    if (seen.has(token))
      refuseGguf("vocabulary", file, `the token ${JSON.stringify(token)} of ${path}, which has two ids,`);
    seen.add(token);
  }
  return { tokens: complete, kinds };
}

/** Throws `ERR_FILE_FORMAT`. */
function parse(path: string, text: string): Parsed {
  const wrong = (what: string, cause?: unknown): never => {
    throw new LowrankError("ERR_FILE_FORMAT", `${path}: ${what}`, { cause });
  };
  let json: Json;
  try {
    json = JSON.parse(text) as Json;
  } catch (cause) {
    return wrong(`not JSON (${(cause as Error).message})`, cause);
  }
  const model = (json["model"] ?? {}) as Json;
  const vocabulary = Object.entries((model["vocab"] ?? {}) as Json);
  const merges: unknown = model["merges"] ?? [];
  const added: unknown = json["added_tokens"] ?? [];
  if (!vocabulary.every(([, id]) => Number.isSafeInteger(id) && (id as number) >= 0))
    wrong("its vocabulary does not give an id to each token");
  if (!Array.isArray(merges) || !Array.isArray(added))
    return wrong("its merges and added tokens must be lists");
  return {
    json,
    model,
    vocabulary: new Map(vocabulary as [string, number][]),
    merges: merges.map((merge: unknown): [string, string] => {
      const pair: unknown = typeof merge === "string" ? merge.split(" ") : merge;
      if (Array.isArray(pair) && pair.length === 2 && pair.every((part) => typeof part === "string"))
        return pair as [string, string];
      return wrong(`a merge is ${shorten(merge)}`);
    }),
    added: added.map((token: Partial<Added>): Added => {
      if (Number.isSafeInteger(token.id) && typeof token.content === "string")
        return { id: token.id as number, content: token.content, special: token.special === true };
      return wrong(`an added token is ${shorten(token)}`);
    }),
  };
}

function shorten(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 160 ? `${text.slice(0, 160)}…` : text;
}
