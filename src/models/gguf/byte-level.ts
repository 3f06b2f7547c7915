/** Byte-level BPE (`tokenizer.ggml.model` gpt2), as `tokenizer.json` has it. */
import { type Metadata } from "./metadata.js";
import { PRE_TOKENIZERS, type PreTokenizer } from "./pre-tokenizers.js";
import type { Parts, Vocabulary } from "./tokenizer.js";

/** How a text is cut. Throws `ERR_UNSUPPORTED_MODEL` for a name that is not known. */
function preTokenizer(meta: Metadata): PreTokenizer {
  const key = "tokenizer.ggml.pre";
  const name = meta.text(key) ?? "default";
  const known = PRE_TOKENIZERS[name];
  if (known !== undefined && Object.hasOwn(PRE_TOKENIZERS, name)) return known;
  const names = Object.keys(PRE_TOKENIZERS).join(", ");
  throw meta.unsupported(`${key} "${name}" is not supported; supported are ${names}`);
}

export function byteLevel(meta: Metadata, { tokens }: Vocabulary): Parts {
  const { steps, ignoreMerges = false, addBos = false, normalizer } = preTokenizer(meta);
  const key = "tokenizer.ggml.merges";
  const merges = meta.texts(key);
  if (merges === undefined) throw meta.error(key, "is missing, which a vocabulary of this kind has");
  // A space is the separator, and neither part begins with one.
  const separator = (merge: string): number => merge.indexOf(" ", 1);
  merges.forEach((merge, i) => {
    const at = separator(merge);
    if (at < 0 || at === merge.length - 1)
      throw meta.error(
        key,
        `must be pairs with a space between, and number ${i} is ${JSON.stringify(merge)}`,
      );
  });
  // As they are stored where each has one space: pairs of their own take tens of megabytes.
  const plain = merges.every((merge) => merge.indexOf(" ") === merge.lastIndexOf(" "));
  const pair = (merge: string): [string, string] => {
    const at = separator(merge);
    return [merge.slice(0, at), merge.slice(at + 1)];
  };
  return {
    tokens,
    model: {
      unk_token: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: ignoreMerges,
      merges: plain ? merges : merges.map(pair),
    },
    normalizer: normalizer ?? null,
    preTokenizer: steps.length === 1 ? steps[0] : { type: "Sequence", pretokenizers: steps },
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    addBos,
  };
}
