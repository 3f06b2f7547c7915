/** The tokens that end and pad training rows. */
import { type CompanionFiles, readCompanionFields } from "./companion-files.js";
import { readTokenText } from "./chat-template-files.js";

export interface SpecialTokens {
  /** The first ends a training row; any of them ends a generation. */
  eosTokenIds: readonly number[];
  padTokenId: number;
}

/**
 * Returns the end and padding tokens. The tokenizer's end token comes before the model's: rows must end as the
 * tokenizer ends them, while the list of an instruction model begins with the base model's token. Padding is always
 * masked, so 0 serves where there is no padding token, or its id is outside the embedding.
 */
export function findSpecialTokens(
  tokenizer: { companions: CompanionFiles; tokenToId(token: string): number | undefined },
  config: { eosTokenIds?: readonly number[] | undefined; padTokenId?: number | undefined; vocabSize: number },
): SpecialTokens {
  const fields = readCompanionFields(tokenizer.companions, "tokenizer_config.json");
  const findId = (key: string): number | undefined => {
    const text = readTokenText(fields, key);
    return text === undefined ? undefined : tokenizer.tokenToId(text);
  };
  const eos = findId("eos_token");
  const named = config.eosTokenIds ?? [];
  const eosTokenIds = [...new Set(eos === undefined ? named : [eos, ...named])];
  const pad = findId("pad_token") ?? config.padTokenId ?? 0;
  return { eosTokenIds, padTokenId: pad < config.vocabSize ? pad : 0 };
}
