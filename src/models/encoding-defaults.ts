/** Padding and truncation as a tokenizer's files define them. */
import { type CompanionFiles, readCompanionFields } from "./companion-files.js";
import { readSpecialTokens } from "./chat-template-files.js";

/** Defaults of `encodeBatch`, as transformers reads them. */
export interface EncodingDefaults {
  paddingSide: "left" | "right";
  truncationSide: "left" | "right";
  /** Undefined where the tokenizer has no padding token. Read on first use: `tokenizer.json` may be large. */
  padTokenId: () => number | undefined;
  /** `model_max_length`; undefined where the file has none. */
  maxLength: number | undefined;
}

/** Tokenizer classes that pad on the left where `tokenizer_config.json` names no side. */
const PADS_LEFT = /^(Code)?(Llama|Gemma)Tokenizer(Fast)?$/;
/** transformers writes this number or a larger one for "no limit". */
const UNLIMITED = 1e20;

/** Throws `ERR_FILE_FORMAT`. */
export function readEncodingDefaults(
  companions: CompanionFiles,
  tokenToId: (token: string) => number | undefined,
): EncodingDefaults {
  const config = readCompanionFields(companions, "tokenizer_config.json");
  const side = (key: string): "left" | "right" | undefined => {
    const value = config?.readString(key);
    if (value === undefined || value === "left" || value === "right") return value;
    throw config?.createError(key, 'must be "left" or "right"');
  };
  const limit = config?.readPositive("model_max_length");
  const paddingSide = side("padding_side");
  let pad: { id: number | undefined } | undefined;
  return {
    paddingSide:
      paddingSide ?? (PADS_LEFT.test(config?.readString("tokenizer_class") ?? "") ? "left" : "right"),
    truncationSide: side("truncation_side") ?? "right",
    padTokenId: () => (pad ??= { id: findPadTokenId(companions, tokenToId) }).id,
    maxLength: limit === undefined || limit >= UNLIMITED ? undefined : Math.floor(limit),
  };
}

/**
 * Returns the id of the padding token: as named in the configuration, else in `tokenizer.json`, else `[PAD]` or
 * `<pad>`.
 */
function findPadTokenId(
  companions: CompanionFiles,
  tokenToId: (token: string) => number | undefined,
): number | undefined {
  const named = readSpecialTokens(companions)["pad_token"];
  if (named !== undefined) return tokenToId(named);
  const padToken = readCompanionFields(companions, "tokenizer.json")
    ?.readObject("padding")
    ?.readString("pad_token");
  return [padToken, "[PAD]", "<pad>"]
    .map((token) => (token === undefined ? undefined : tokenToId(token)))
    .find((id) => id !== undefined);
}
