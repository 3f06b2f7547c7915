/** BPE of SentencePiece (`tokenizer.ggml.model` llama), as `tokenizer.json` has it. */
import type { Metadata } from "./metadata.js";
import type { ArchitectureName } from "./names.js";
import type { Parts, Vocabulary } from "./tokenizer.js";

const SPACE = "\u2581";

const replace = (from: string, content: string): object => ({
  type: "Replace",
  pattern: { String: from },
  content,
});

export function sentencePiece(meta: Metadata, vocabulary: Vocabulary, architecture: ArchitectureName): Parts {
  const gemma = architecture === "gemma3";
  // Of Gemma, runs of spaces are stored as they are.
  const tokens = gemma
    ? vocabulary.tokens.map((token) => (/^ +$/.test(token) ? SPACE.repeat(token.length) : token))
    : vocabulary.tokens;
  const prefix = !gemma && (meta.flag("tokenizer.ggml.add_space_prefix") ?? true);
  const unknown = meta.number("tokenizer.ggml.unknown_token_id") ?? vocabulary.types?.indexOf(2) ?? -1;
  const decoders: object[] = [replace(SPACE, " "), { type: "ByteFallback" }, { type: "Fuse" }];
  if (prefix) decoders.push({ type: "Strip", content: " ", start: 1, stop: 0 });
  return {
    tokens,
    model: {
      unk_token: tokens[unknown] ?? null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      merges: merges(meta, tokens, gemma),
    },
    ...spaces(architecture, prefix),
    decoder: { type: "Sequence", decoders },
    addBos: true,
  };
}

/** Where spaces become `▁`, and where one is put before a text: as each model's own tokenizer has it. */
function spaces(architecture: ArchitectureName, prefix: boolean): Pick<Parts, "normalizer" | "preTokenizer"> {
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

/**
 * The merges, the first to be made first: those of the file, or all pairs of tokens that make a token, by its score. Of
 * Gemma, whose scores are no order, by its place.
 */
function merges(meta: Metadata, tokens: readonly string[], byPlace: boolean): [string, string][] {
  const listed = meta.texts("tokenizer.ggml.merges");
  if (listed !== undefined) {
    return listed.map((merge) => {
      const at = merge.indexOf(" ", 1);
      return [merge.slice(0, at), merge.slice(at + 1)];
    });
  }
  const key = "tokenizer.ggml.scores";
  const scores = meta.numbers(key);
  if (scores === undefined) throw meta.error(key, "is missing, which a vocabulary of this kind has");
  if (scores.length !== tokens.length)
    throw meta.error(key, `must have a score for each of ${tokens.length} tokens, and has ${scores.length}`);
  const places = new Map(tokens.map((token, i) => [token, i]));
  const found: {
    pair: [string, string];
    score: number;
    left: number;
    right: number;
    sizes: [number, number];
  }[] = [];
  for (const [token, place] of places) {
    const letters = [...token];
    const score = byPlace ? -place : (scores[place] as number);
    const own: typeof found = [];
    for (let i = 1, at = 0; i < letters.length; i++) {
      at += (letters[i - 1] as string).length;
      const pair: [string, string] = [token.slice(0, at), token.slice(at)];
      const [left, right] = [places.get(pair[0]), places.get(pair[1])];
      if (left === undefined || right === undefined) continue;
      own.push({ pair, score, left, right, sizes: [i, letters.length - i] });
    }
    // Of several pairs that make a token, that of the earlier tokens first.
    found.push(...own.sort((a, b) => a.left - b.left || a.right - b.right));
  }
  found.sort((a, b) => b.score - a.score || b.sizes[0] - a.sizes[0] || b.sizes[1] - a.sizes[1]);
  return found.map(({ pair }) => pair);
}
