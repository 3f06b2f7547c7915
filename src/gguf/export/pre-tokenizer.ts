/** llama.cpp's names of byte-level pre-tokenizers. Source: llama.cpp's src/llama-vocab.cpp. */

import { PATTERNS } from "../patterns.js";

/** An object of `tokenizer.json`. */
export type Json = Readonly<Record<string, unknown>>;

/**
 * llama.cpp's names of patterns, for tokenizers that ignore merges for whole words (`ignore_merges`) and for others.
 */
const NAMES: Readonly<Record<string, { plain?: string; ignoringMerges?: string }>> = {
  [PATTERNS.llama3]: { plain: "dbrx", ignoringMerges: "llama-bpe" },
  [PATTERNS.qwen2]: { plain: "qwen2" },
  [PATTERNS.qwen35]: { plain: "qwen35" },
  [PATTERNS.gpt4o]: { plain: "gpt-4o" },
  [PATTERNS.tekken]: { ignoringMerges: "tekken" },
};

/** Flattens nested sequences into a list of steps. */
export function flattenSteps(node: unknown, list: "pretokenizers" | "normalizers" | "processors"): Json[] {
  if (node === null || typeof node !== "object") return [];
  const step = node as Json;
  if (step["type"] !== "Sequence") return [step];
  const inner = step[list];
  return Array.isArray(inner) ? inner.flatMap((each) => flattenSteps(each, list)) : [step];
}

/** Returns llama.cpp's name of a byte-level pre-tokenizer; undefined where it has none. */
export function recognisePreTokenizer(preTokenizer: unknown, ignoresMerges: boolean): string | undefined {
  const steps = flattenSteps(preTokenizer, "pretokenizers");
  const last = steps.pop();
  if (last?.["type"] !== "ByteLevel" || last["add_prefix_space"] === true) return undefined;
  const [first, ...others] = steps;
  if (others.length > 0) return undefined;
  const byPattern = last["use_regex"] !== false;
  if (first === undefined) return byPattern && !ignoresMerges ? "gpt-2" : undefined;
  if (first["type"] === "Digits")
    return byPattern && first["individual_digits"] === true && !ignoresMerges ? "smollm" : undefined;
  const { type, behavior, invert = false, pattern } = first;
  const regex = (pattern as Json | undefined)?.["Regex"];
  // The patterns match the whole text, so keeping only matches is equivalent to splitting around them.
  const keepsAll =
    (behavior === "Isolated" && invert === false) || (behavior === "Removed" && invert === true);
  if (type !== "Split" || !keepsAll || byPattern) return undefined;
  if (typeof regex !== "string" || !Object.hasOwn(NAMES, regex)) return undefined;
  return NAMES[regex]?.[ignoresMerges ? "ignoringMerges" : "plain"];
}
