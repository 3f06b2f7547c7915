/** Byte-level pre-tokenizers by `tokenizer.ggml.pre`. The names are llama.cpp's (llama-vocab.cpp). */
import { PATTERNS } from "../patterns.js";

/** A member of `pre_tokenizer` in `tokenizer.json`. */
type Step = Readonly<Record<string, unknown>>;

export interface PreTokenizer {
  steps: readonly Step[];
  /** Whether a piece that is itself a token skips the merges. */
  ignoreMerges?: boolean;
  /** Whether texts begin with the start token by default. */
  addBos?: boolean;
  normalizer?: Step;
}

const createByteLevel = (useRegex: boolean): Step => ({
  type: "ByteLevel",
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: useRegex,
});

const createSplit = (pattern: string): Step => ({
  type: "Split",
  pattern: { Regex: pattern },
  behavior: "Isolated",
  invert: false,
});

const createSteps = (pattern: string): readonly Step[] => [createSplit(pattern), createByteLevel(false)];

const GPT2: PreTokenizer = { steps: [createByteLevel(true)] };

/** Splits numbers into single digits. */
const DIGITS: PreTokenizer = { steps: [{ type: "Digits", individual_digits: true }, createByteLevel(true)] };

const LLAMA3: PreTokenizer = {
  steps: createSteps(PATTERNS.llama3),
  ignoreMerges: true,
  addBos: true,
};

const QWEN2: PreTokenizer = {
  steps: createSteps(PATTERNS.qwen2),
  normalizer: { type: "NFC" },
};

const TEKKEN: PreTokenizer = {
  steps: createSteps(PATTERNS.tekken),
  ignoreMerges: true,
};

const GPT4O: PreTokenizer = {
  steps: createSteps(PATTERNS.gpt4o),
};

/** The supported pre-tokenizers. */
export const PRE_TOKENIZERS: Readonly<Record<string, PreTokenizer>> = {
  default: GPT2,
  "gpt-2": GPT2,
  smollm: DIGITS,
  starcoder: DIGITS,
  refact: DIGITS,
  llama3: LLAMA3,
  "llama-v3": LLAMA3,
  "llama-bpe": LLAMA3,
  falcon3: LLAMA3,
  qwen2: QWEN2,
  "deepseek-r1-qwen": QWEN2,
  tekken: TEKKEN,
  "gpt-4o": GPT4O,
};
