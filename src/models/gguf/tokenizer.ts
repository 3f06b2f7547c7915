/** The tokenizer of a GGUF file's metadata, as the files of a model's folder have it. */
import { type Beside, madeOf } from "../beside.js";
import { Tokenizer } from "../tokenizer.js";
import { byteLevel } from "./byte-level.js";
import type { Metadata } from "./metadata.js";
import type { ArchitectureName } from "./names.js";
import { sentencePiece } from "./sentencepiece.js";

/** The tokens by their ids, and what kind each is of where the file says. */
export interface Vocabulary {
  tokens: readonly string[];
  types: readonly number[] | undefined;
}

/** What a kind of tokenizer makes of the metadata: parts of `tokenizer.json`. */
export interface Parts {
  /** As `tokenizer.json` spells them. */
  tokens: readonly string[];
  /** What `model` has besides its vocabulary. */
  model: Readonly<Record<string, unknown>>;
  normalizer: unknown;
  preTokenizer: unknown;
  decoder: unknown;
  /** Whether texts begin with the start token where the file does not say. */
  addBos: boolean;
}

/** `tokenizer.ggml.token_type`. */
const CONTROL = 3;
const USER_DEFINED = 4;

const SPECIAL = {
  bos_token: "bos_token_id",
  eos_token: "eos_token_id",
  unk_token: "unknown_token_id",
  pad_token: "padding_token_id",
  sep_token: "seperator_token_id",
  mask_token: "mask_token_id",
};

function vocabularyOf(meta: Metadata): Vocabulary {
  const key = "tokenizer.ggml.tokens";
  const tokens = meta.texts(key);
  if (tokens === undefined) throw meta.error(key, "is missing, which a file with a tokenizer has");
  const types = meta.numbers("tokenizer.ggml.token_type");
  if (types !== undefined && types.length !== tokens.length)
    throw meta.error(
      "tokenizer.ggml.token_type",
      `must be of ${tokens.length} tokens, and is of ${types.length}`,
    );
  return { tokens, types };
}

type SpecialTokens = Readonly<Record<string, string>>;

/** The special tokens by their names, such as `eos_token`. */
function specialTokens(meta: Metadata, tokens: readonly string[]): SpecialTokens {
  const found: Record<string, string> = {};
  for (const [name, key] of Object.entries(SPECIAL)) {
    const id = meta.number(`tokenizer.ggml.${key}`);
    const token = id === undefined ? undefined : tokens[id];
    if (token !== undefined) found[name] = token;
  }
  return found;
}

/**
 * What stands for the files of a folder: `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja`, each made
 * when it is asked for. Undefined where the file has no tokenizer.
 *
 * Throws `ERR_UNSUPPORTED_MODEL` for a kind of tokenizer that is not read, `ERR_FILE_FORMAT`.
 */
export function tokenizerFiles(meta: Metadata, architecture: ArchitectureName): Beside | undefined {
  const key = "tokenizer.ggml.model";
  const kind = meta.text(key);
  if (kind === undefined || kind === "none" || kind === "no_vocab") return undefined;
  if (kind !== "gpt2" && kind !== "llama")
    throw meta.unsupported(`${key} "${kind}" is not supported; supported are gpt2 and llama`);
  const partsOf = (vocabulary: Vocabulary): Parts =>
    kind === "gpt2" ? byteLevel(meta, vocabulary) : sentencePiece(meta, vocabulary, architecture);
  // The names are some of all tokens, which are not held: a vocabulary takes tens of megabytes.
  let special: SpecialTokens | undefined;
  const read = (): Vocabulary => {
    const vocabulary = vocabularyOf(meta);
    special ??= specialTokens(meta, vocabulary.tokens);
    return vocabulary;
  };
  const json = (): string => {
    const vocabulary = read();
    return tokenizerJson(meta, vocabulary, partsOf(vocabulary));
  };
  const place = `${meta.where}: tokenizer.ggml`;
  return madeOf(meta.where, {
    "tokenizer.json": { place, text: json },
    "tokenizer_config.json": {
      place,
      text: () => configJson((special ??= specialTokens(meta, vocabularyOf(meta).tokens))),
    },
    "chat_template.jinja": {
      place: `${meta.where}: tokenizer.chat_template`,
      text: () => meta.text("tokenizer.chat_template"),
    },
  });
}

/** A tokenizer of such files; undefined where there are none. */
export function tokenizerOf(path: string, beside: Beside | undefined): Tokenizer | undefined {
  return beside === undefined ? undefined : new Tokenizer(path, beside);
}

function configJson(special: SpecialTokens): string {
  return `${JSON.stringify({ ...special, tokenizer_class: "PreTrainedTokenizerFast" }, null, 2)}\n`;
}

function tokenizerJson(meta: Metadata, { types }: Vocabulary, parts: Parts): string {
  const { tokens, model, normalizer, preTokenizer, decoder } = parts;
  const special = specialTokens(meta, tokens);
  const vocab: Record<string, number> = Object.create(null) as Record<string, number>;
  tokens.forEach((token, id) => {
    vocab[token] = id;
  });
  const named = new Set(Object.values(special));
  const added = tokens.flatMap((content, id) => {
    const type = types?.[id];
    const control = type === CONTROL || named.has(content);
    if (!control && type !== USER_DEFINED) return [];
    // A later token of the same text has its id.
    if (vocab[content] !== id) return [];
    return [
      { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: control },
    ];
  });
  return JSON.stringify({
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer,
    pre_tokenizer: preTokenizer,
    post_processor: frame(meta, special, vocab, parts.addBos),
    decoder,
    model: {
      type: "BPE",
      dropout: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      ...model,
      vocab,
    },
  });
}

/** The tokens that are put around a text; null for none. */
function frame(
  meta: Metadata,
  { bos_token: bos, eos_token: eos }: SpecialTokens,
  vocab: Readonly<Record<string, number>>,
  addBos: boolean,
): object | null {
  const asked = (key: string, otherwise: boolean): boolean => meta.flag(`tokenizer.ggml.${key}`) ?? otherwise;
  const before = asked("add_bos_token", addBos) && bos !== undefined ? [bos] : [];
  const after = asked("add_eos_token", false) && eos !== undefined ? [eos] : [];
  const around = [...before, ...after];
  if (around.length === 0) return null;
  const token = (id: string, type_id = 0): object => ({ SpecialToken: { id, type_id } });
  const text = (id: string, type_id = 0): object => ({ Sequence: { id, type_id } });
  const special = Object.fromEntries(
    around.map((one) => [one, { id: one, ids: [vocab[one]], tokens: [one] }]),
  );
  const [open, close] = [before.map((one) => token(one)), after.map((one) => token(one))];
  const second = [...before, "", ...after].map((one) => (one === "" ? text("B", 1) : token(one, 1)));
  return {
    type: "TemplateProcessing",
    single: [...open, text("A"), ...close],
    pair: [...open, text("A"), ...close, ...second],
    special_tokens: special,
  };
}
