/**
 * Features that cannot be written as GGUF, with reasons: llama.cpp does not read them, or computes them differently.
 */
import { LowrankError, type ErrorCode } from "../errors.js";
import { explain, type Refusal } from "../refusals/refusal.js";

const MERGE = "merge it into its model, and write that: lowrank merge --format gguf";
const FOLDER = "save the model as a folder for transformers";
const TOKENS = "use a model with one of the supported tokenizers, or save a folder";

/** All refusals, by key. */
export const GGUF_REFUSALS = {
  dora: {
    what: "DoRA",
    where: "an adapter as GGUF",
    reason: "llama.cpp adds B·A to a layer, and cannot apply DoRA's magnitudes",
    instead: MERGE,
  },
  biases: {
    what: "trained biases",
    where: "an adapter as GGUF",
    reason: "llama.cpp's adapters have no biases",
    instead: MERGE,
  },
  factorBiases: {
    what: "biases of B (loraBias)",
    where: "an adapter as GGUF",
    reason: "llama.cpp's adapters have no biases",
    instead: `where the layers have biases, ${MERGE}; else keep PEFT's folder`,
  },
  modulesToSave: {
    what: "modules trained in full (modulesToSave)",
    where: "an adapter as GGUF",
    reason: "llama.cpp's adapters contain only A and B, not whole layers",
    instead: MERGE,
  },
  tokens: {
    what: "separately trained tokens (trainableTokenIndices)",
    where: "an adapter as GGUF",
    reason: "llama.cpp's adapters contain only A and B, not rows of an embedding",
    instead: MERGE,
  },
  convolutions: {
    what: "convolutions",
    where: "an adapter as GGUF",
    reason: "none of the supported llama.cpp architectures has convolutions",
    instead: "export it for kohya, or keep PEFT's folder",
  },
  tied: {
    what: "the head or the embedding, where they are one tensor (tie_word_embeddings)",
    where: "an adapter as GGUF",
    reason:
      "llama.cpp stores the shared tensor under the embedding's name: it finds no head to adapt, and applies an " +
      "embedding's factors to the head too",
    instead: MERGE,
  },
  layers: {
    what: "layers that llama.cpp does not adapt, such as GPT-2's position embedding and norms",
    where: "an adapter as GGUF",
    reason: "llama.cpp adapts only projections, the head and the token embedding",
    instead: MERGE,
  },
  adapterFamily: {
    what: "adapters of other families than Llama, Mistral, Qwen2, Qwen3, Gemma 3, Phi-3 and GPT-2",
    where: "an adapter as GGUF",
    reason: "llama.cpp has no architecture for them that supports adapters",
    instead: "keep PEFT's folder",
  },
  modelFamily: {
    what: "models of other families than Llama, Mistral, Qwen2, Qwen3, Gemma 3, Phi-3 and GPT-2, and classifiers",
    where: "a model as GGUF",
    reason: "llama.cpp has no such language models",
    instead: FOLDER,
  },
  rope: {
    what: "rope scalings: llama3 outside Llama and Mistral; yarn with bounds other than 32 and 1, or not rounded to whole dimensions; any except linear in Gemma 3's full-attention layers; any in its sliding-window layers",
    where: "a model as GGUF",
    reason:
      "llama.cpp does not read this scaling for the architecture, and would rotate positions differently",
    instead: FOLDER,
  },
  scores: {
    what: "scores not divided by the root of the head size (query_pre_attn_scalar, scale_attn_weights, scale_attn_by_inverse_layer_idx)",
    where: "a model as GGUF",
    reason: "llama.cpp always divides by that root, except in Gemma 3 27B",
    instead: FOLDER,
  },
  activation: {
    what: "an activation other than tanh GELU in GPT-2 and Gemma 3",
    where: "a model as GGUF",
    reason: "llama.cpp always computes tanh GELU",
    instead: FOLDER,
  },
  modelBiases: {
    what: "attention biases in Qwen3 and Gemma 3",
    where: "a model as GGUF",
    reason: "llama.cpp does not support the output projection's bias",
    instead: FOLDER,
  },
  headSize: {
    what: "a head size in Qwen2 other than hidden_size / heads",
    where: "a model as GGUF",
    reason: "llama.cpp assumes that size",
    instead: FOLDER,
  },
  tokenizer: {
    what: "tokenizers other than byte-level BPE, and SentencePiece BPE with tokens for all bytes",
    where: "a model as GGUF",
    reason: "llama.cpp's tokenizers split texts differently",
    instead: TOKENS,
  },
  preTokenizer: {
    what: "byte-level BPE with a pattern other than GPT-2's, SmolLM's, Llama 3's, Qwen's, GPT-4o's or Tekken's",
    where: "a model as GGUF",
    reason: "llama.cpp identifies pre-tokenizers by name, and has no name for this pattern",
    instead: TOKENS,
  },
  vocabulary: {
    what: "a tokenizer with tokens beyond the embedding's rows, or two tokens of one text",
    where: "a model as GGUF",
    reason: "llama.cpp requires one token per row, with different texts",
    instead: FOLDER,
  },
} as const satisfies Record<string, Refusal>;

/** Throws the refusal `which`; `subject` names the refused thing in `file`. */
export function refuseGguf(
  which: keyof typeof GGUF_REFUSALS,
  file: string,
  subject: string,
  code: ErrorCode = "ERR_OPTION",
): never {
  const refusal = GGUF_REFUSALS[which];
  throw new LowrankError(
    code,
    `${file}: ${subject} cannot be written in ${refusal.where}: ${explain(refusal)}`,
  );
}
