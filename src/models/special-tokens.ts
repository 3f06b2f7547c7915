/** The tokens that end and pad training rows. */
import { type Beside, fieldsBeside } from "./beside.js";
import { tokenText } from "./chat-template-files.js";

export interface SpecialTokens {
  /** The first is what ends a row; each of them ends a generation. */
  eosTokenIds: readonly number[];
  padTokenId: number;
}

/**
 * The end token of the tokenizer goes before those of the model: an instruction model's list begins with the base
 * model's, and rows end as the tokenizer ends them. Padding is never seen, so 0 serves where none is
 * named, or where the one named has no row in the embedding.
 */
export function specialTokens(
  tokenizer: { beside: Beside; tokenToId(token: string): number | undefined },
  config: { eosTokenIds?: readonly number[] | undefined; padTokenId?: number | undefined; vocabSize: number },
): SpecialTokens {
  const own = fieldsBeside(tokenizer.beside, "tokenizer_config.json");
  const idOf = (key: string): number | undefined => {
    const text = tokenText(own, key);
    return text === undefined ? undefined : tokenizer.tokenToId(text);
  };
  const eos = idOf("eos_token");
  const named = config.eosTokenIds ?? [];
  const eosTokenIds = [...new Set(eos === undefined ? named : [eos, ...named])];
  const pad = idOf("pad_token") ?? config.padTokenId ?? 0;
  return { eosTokenIds, padTokenId: pad < config.vocabSize ? pad : 0 };
}
