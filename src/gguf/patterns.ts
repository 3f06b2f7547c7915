/**
 * Patterns of byte-level pre-tokenizers, from each model's original `tokenizer.json`, under llama.cpp's names. Source:
 * llama.cpp's src/llama-vocab.cpp.
 */
const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const BEFORE = String.raw`[^\r\n\p{L}\p{N}]?`;
const ENDS = String.raw`\s*[\r\n]+|\s+(?!\S)|\s+`;
const SYMBOLS = String.raw` ?[^\s\p{L}\p{N}]+[\r\n]*`;
const SLASHES = String.raw` ?[^\s\p{L}\p{N}]+[\r\n/]*`;
const UPPER = String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`;
const LOWER = String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`;
const WORDS = String.raw`${CONTRACTIONS}|${BEFORE}\p{L}+`;
const foldCase = (after: string): string =>
  `${BEFORE}${UPPER}*${LOWER}+${after}|${BEFORE}${UPPER}+${LOWER}*${after}`;

export const PATTERNS = {
  llama3: String.raw`${WORDS}|\p{N}{1,3}|${SYMBOLS}|${ENDS}`,
  qwen2: String.raw`${WORDS}|\p{N}|${SYMBOLS}|${ENDS}`,
  qwen35: String.raw`${CONTRACTIONS}|${BEFORE}[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|${ENDS}`,
  gpt4o: String.raw`${foldCase(`${CONTRACTIONS}?`)}|\p{N}{1,3}|${SLASHES}|${ENDS}`,
  tekken: String.raw`${foldCase("")}|\p{N}|${SLASHES}|${ENDS}`,
} as const;
