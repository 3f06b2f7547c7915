/** Converts byte-level BPE (`tokenizer.ggml.model` gpt2) to the parts of a `tokenizer.json`. */
import { type Metadata } from "./metadata.js";
import { PRE_TOKENIZERS, type PreTokenizer } from "./pre-tokenizers.js";
import type { TokenizerParts } from "./tokenizer.js";

/** Returns the file's pre-tokenizer. Throws `ERR_UNSUPPORTED_MODEL` for an unknown name. */
function readPreTokenizer(meta: Metadata): PreTokenizer {
  const key = "tokenizer.ggml.pre";
  const name = meta.readText(key) ?? "default";
  const known = PRE_TOKENIZERS[name];
  if (known !== undefined && Object.hasOwn(PRE_TOKENIZERS, name)) return known;
  const names = Object.keys(PRE_TOKENIZERS).join(", ");
  throw meta.createUnsupported(`${key} "${name}" is not supported; supported are ${names}`);
}

export function readByteLevel(meta: Metadata): TokenizerParts {
  const { steps, ignoreMerges = false, addBos = false, normalizer } = readPreTokenizer(meta);
  return {
    kind: "byte-level",
    normalizer: normalizer ?? null,
    preTokenizer: steps.length === 1 ? steps[0] : { type: "Sequence", pretokenizers: steps },
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    ignoreMerges,
    gemma: false,
    addBos,
  };
}
