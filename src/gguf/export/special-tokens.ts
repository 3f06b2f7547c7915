/** Special tokens in the metadata of llama.cpp. */
import type { GgufValue } from "../writer.js";
import { refuseGguf } from "../refusals.js";
import type { CausalLM } from "../../models/causal-lm.js";
import { readSpecialTokens } from "../../models/chat-template-files.js";
import { findSpecialTokens } from "../../models/special-tokens.js";
import type { Tokenizer } from "../../models/tokenizer.js";

/** llama.cpp's keys of special tokens, by their keys in `tokenizer_config.json`. */
const KEYS = {
  unk_token: "unknown_token_id",
  sep_token: "seperator_token_id",
  pad_token: "padding_token_id",
  mask_token: "mask_token_id",
} as const;

/**
 * Returns the ids of special tokens, and whether they are added to a text. Throws `ERR_OPTION` for more than one at
 * either end.
 */
export function convertSpecialTokens(
  file: string,
  model: CausalLM,
  tokenizer: Tokenizer,
): [string, GgufValue][] {
  const { config } = model;
  const named = readSpecialTokens(tokenizer.companions);
  const findId = (key: string): number | undefined => {
    const text = named[key];
    return text === undefined ? undefined : tokenizer.tokenToId(text);
  };
  const { before, after } = findFrameTokens(tokenizer);
  const ends = findSpecialTokens(tokenizer, config).eosTokenIds;
  const bos = before[0] ?? findId("bos_token") ?? config.bosTokenId;
  const eos = after[0] ?? ends[0];
  if (before.length > 1 || after.length > 1)
    refuseGguf(
      "tokenizer",
      file,
      `the tokenizer of ${tokenizer.path}, which puts several tokens around a text,`,
    );
  // Another token that ends a generation, such as the end of a turn.
  const turn = ends.find((id) => id !== eos);
  const ids: [string, number | undefined][] = [
    ["bos_token_id", bos],
    ["eos_token_id", eos],
    ["eot_token_id", turn],
    ...Object.entries(KEYS).map(([key, to]): [string, number | undefined] => [to, findId(key)]),
  ];
  return [
    ...ids.flatMap(([key, id]): [string, GgufValue][] =>
      id === undefined || id >= config.vocabSize ? [] : [[`tokenizer.ggml.${key}`, { u32: id }]],
    ),
    ["tokenizer.ggml.add_bos_token", { bool: before.length > 0 }],
    ["tokenizer.ggml.add_eos_token", { bool: after.length > 0 }],
  ];
}

/** Returns the tokens that the tokenizer adds before and after a text. */
function findFrameTokens(tokenizer: Tokenizer): { before: number[]; after: number[] } {
  const plain = [...tokenizer.encode("a", { addSpecialTokens: false })];
  const framed = [...tokenizer.encode("a")];
  const start = framed.findIndex((_, i) => plain.every((id, j) => framed[i + j] === id));
  return { before: framed.slice(0, start), after: framed.slice(start + plain.length) };
}
