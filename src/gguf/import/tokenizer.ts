/** The tokenizer in a GGUF file's metadata, and the companion files generated from it. */
import type * as Binding from "../../../native/binding.js";
import { call, wrapMethods, native } from "../../native/binding.js";
import { type CompanionFiles, generateCompanions } from "../../models/companion-files.js";
import { Tokenizer } from "../../models/tokenizer.js";
import { readByteLevel } from "./byte-level.js";
import type { Metadata } from "./metadata.js";
import type { ArchitectureName } from "./names.js";
import { readSentencePiece } from "./sentencepiece.js";

/** The parts of a tokenizer except the vocabulary, which the engine reads itself. */
export interface TokenizerParts {
  kind: "byte-level" | "sentencepiece";
  /** In the format of `tokenizer.json`. */
  normalizer: unknown;
  preTokenizer: unknown;
  decoder: unknown;
  /** Whether a piece that is itself a token skips the merges. */
  ignoreMerges: boolean;
  /** Whether runs of spaces are stored as spaces, and tokens are stored in merge order. */
  gemma: boolean;
  /** The unknown token, where the file has one. */
  unknown?: number | undefined;
  /** Whether texts begin with the start token by default. */
  addBos: boolean;
}

/** A tokenizer, built on first use. */
export interface GgufTokenizer {
  tokenizer(): Tokenizer;
  /** The generated `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja`. */
  companions: CompanionFiles;
}

const SPECIAL = {
  bos_token: "bos_token_id",
  eos_token: "eos_token_id",
  unk_token: "unknown_token_id",
  pad_token: "padding_token_id",
  sep_token: "seperator_token_id",
  mask_token: "mask_token_id",
};

/** A special token, with its key, such as `eos_token`. */
interface Special {
  name: string;
  id: number;
  text: string;
}

function listSpecialTokens(meta: Metadata): Special[] {
  return Object.entries(SPECIAL).flatMap(([name, key]) => {
    const id = meta.readNumber(`tokenizer.ggml.${key}`);
    const text = id === undefined ? undefined : meta.readTextAt("tokenizer.ggml.tokens", id);
    return id === undefined || text === undefined ? [] : [{ name, id, text }];
  });
}

/**
 * Returns the tokenizer in the metadata; undefined where the file has none.
 *
 * Throws `ERR_UNSUPPORTED_MODEL` for an unsupported kind of tokenizer, `ERR_FILE_FORMAT`.
 */
export function readTokenizer(meta: Metadata, architecture: ArchitectureName): GgufTokenizer | undefined {
  const key = "tokenizer.ggml.model";
  const kind = meta.readText(key);
  if (kind === undefined || kind === "none" || kind === "no_vocab") return undefined;
  if (kind !== "gpt2" && kind !== "llama")
    throw meta.createUnsupported(`${key} "${kind}" is not supported; supported are gpt2 and llama`);
  let tokenizer: Binding.Tokenizer | undefined;
  const build = (): Binding.Tokenizer =>
    (tokenizer ??= buildTokenizer(
      meta,
      kind === "gpt2" ? readByteLevel(meta) : readSentencePiece(meta, architecture),
    ));
  const place = `${meta.where}: tokenizer.ggml`;
  const companions = generateCompanions(meta.where, {
    "tokenizer.json": { place, text: () => build().toJson() },
    "tokenizer_config.json": { place, text: () => createConfigJson(listSpecialTokens(meta)) },
    "chat_template.jinja": {
      place: `${meta.where}: tokenizer.chat_template`,
      text: () => meta.readText("tokenizer.chat_template"),
    },
  });
  return { companions, tokenizer: () => new Tokenizer(meta.where, { companions, own: build() }) };
}

function createConfigJson(special: readonly Special[]): string {
  const tokens = Object.fromEntries(special.map(({ name, text }) => [name, text]));
  return `${JSON.stringify({ ...tokens, tokenizer_class: "PreTrainedTokenizerFast" }, null, 2)}\n`;
}

function buildTokenizer(meta: Metadata, parts: TokenizerParts): Binding.Tokenizer {
  const special = listSpecialTokens(meta);
  const readSwitch = (key: string, otherwise: boolean): boolean =>
    meta.readFlag(`tokenizer.ggml.${key}`) ?? otherwise;
  const ids = (wanted: boolean, name: string): number[] =>
    wanted ? special.filter((entry) => entry.name === name).map(({ id }) => id) : [];
  const { normalizer, preTokenizer, decoder, addBos, ...model } = parts;
  const given = {
    ...model,
    parts: JSON.stringify({ normalizer, pre_tokenizer: preTokenizer, decoder }),
    named: special.map(({ id }) => id),
    before: ids(readSwitch("add_bos_token", addBos), "bos_token"),
    after: ids(readSwitch("add_eos_token", false), "eos_token"),
  };
  return wrapMethods(call(() => native().Tokenizer.fromGguf(meta.file, given)));
}
