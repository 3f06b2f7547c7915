/** Converts SentencePiece BPE (`tokenizer.ggml.model` llama) to the parts of a `tokenizer.json`. */
import type { Metadata } from "./metadata.js";
import type { ArchitectureName } from "./names.js";
import type { TokenizerParts } from "./tokenizer.js";

const SPACE = "\u2581";

const replace = (from: string, content: string): object => ({
  type: "Replace",
  pattern: { String: from },
  content,
});

export function readSentencePiece(meta: Metadata, architecture: ArchitectureName): TokenizerParts {
  const gemma = architecture === "gemma3";
  const prefix = !gemma && (meta.readFlag("tokenizer.ggml.add_space_prefix") ?? true);
  const decoders: object[] = [replace(SPACE, " "), { type: "ByteFallback" }, { type: "Fuse" }];
  if (prefix) decoders.push({ type: "Strip", content: " ", start: 1, stop: 0 });
  return {
    kind: "sentencepiece",
    ...createSpaceSteps(architecture, prefix),
    decoder: { type: "Sequence", decoders },
    ignoreMerges: false,
    gemma,
    unknown: meta.readNumber("tokenizer.ggml.unknown_token_id"),
    addBos: true,
  };
}

/** Returns the steps that replace spaces by `▁` and prepend one to a text, as in each model's original tokenizer. */
function createSpaceSteps(
  architecture: ArchitectureName,
  prefix: boolean,
): Pick<TokenizerParts, "normalizer" | "preTokenizer"> {
  if (architecture === "gemma3") {
    return {
      normalizer: replace(" ", SPACE),
      preTokenizer: {
        type: "Split",
        pattern: { String: " " },
        behavior: "MergedWithPrevious",
        invert: false,
      },
    };
  }
  if (architecture === "phi3") {
    const normalizers = [...(prefix ? [{ type: "Prepend", prepend: SPACE }] : []), replace(" ", SPACE)];
    return { normalizer: { type: "Sequence", normalizers }, preTokenizer: null };
  }
  const scheme = prefix ? "first" : "never";
  return {
    normalizer: null,
    preTokenizer: { type: "Metaspace", replacement: SPACE, prepend_scheme: scheme, split: false },
  };
}
