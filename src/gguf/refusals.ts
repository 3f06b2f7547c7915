/**
 * Features that cannot be written as GGUF, with reasons: llama.cpp does not read them, or computes them differently.
 */
import { LowrankError, type ErrorCode } from "../errors.js";
import { because, type Refusal } from "../refusals/refusal.js";

const MERGE = "merge it into its model, and write that: lowrank merge --format gguf";
const FOLDER = "write the model as a folder, which transformers reads";
const TOKENS = "take a model whose tokenizer is one of these, or write a folder";

/** All refusals, by key. */
export const GGUF_REFUSALS = {
  dora: {
    what: "DoRA",
    where: "an adapter as GGUF",
    reason: "llama.cpp adds B·A to a layer, and has no place for the magnitudes that DoRA scales its rows to",
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
    reason: "llama.cpp's adapters hold A and B alone, and no layer whole",
    instead: MERGE,
  },
  tokens: {
    what: "tokens trained alone (trainableTokenIndices)",
    where: "an adapter as GGUF",
    reason: "llama.cpp's adapters hold A and B alone, and no rows of an embedding",
    instead: MERGE,
  },
  convolutions: {
    what: "convolutions",
    where: "an adapter as GGUF",
    reason: "llama.cpp has no architecture with convolutions among those that are written",
    instead: "export it for kohya, or keep PEFT's folder",
  },
  tied: {
    what: "the head or the embedding, where they are one tensor (tie_word_embeddings)",
    where: "an adapter as GGUF",
    reason:
      "llama.cpp holds the one tensor under the embedding's name: it finds no head to adapt, and takes an embedding's " +
      "factors for the head's too",
    instead: MERGE,
  },
  layers: {
    what: "layers that llama.cpp does not adapt, such as GPT-2's position embedding and norms",
    where: "an adapter as GGUF",
    reason: "llama.cpp adapts its projections, its head and the embedding of tokens",
    instead: MERGE,
  },
  adapterFamily: {
    what: "adapters of other families than Llama, Mistral, Qwen2, Qwen3, Gemma 3, Phi-3 and GPT-2",
    where: "an adapter as GGUF",
    reason: "llama.cpp has no architecture for them that adapters go with",
    instead: "keep PEFT's folder",
  },
  modelFamily: {
    what: "models of other families than Llama, Mistral, Qwen2, Qwen3, Gemma 3, Phi-3 and GPT-2, and classifiers",
    where: "a model as GGUF",
    reason: "they are no language models of llama.cpp's",
    instead: FOLDER,
  },
  rope: {
    what: "rope scalings: llama3 but in Llama and Mistral; yarn with other bounds than 32 and 1, or not cut to whole dimensions; any but linear in Gemma 3's layers that see all, or in those that slide",
    where: "a model as GGUF",
    reason: "llama.cpp reads no such scaling for the architecture, and would turn positions otherwise",
    instead: FOLDER,
  },
  scores: {
    what: "scores divided by another root than the head size's (query_pre_attn_scalar, scale_attn_weights, scale_attn_by_inverse_layer_idx)",
    where: "a model as GGUF",
    reason: "llama.cpp divides by its own, but for Gemma 3's 27B",
    instead: FOLDER,
  },
  activation: {
    what: "another activation than tanh's GELU in GPT-2 and Gemma 3",
    where: "a model as GGUF",
    reason: "llama.cpp computes that one",
    instead: FOLDER,
  },
  modelBiases: {
    what: "biases of attention in Qwen3 and Gemma 3",
    where: "a model as GGUF",
    reason: "llama.cpp has no place for that of the output",
    instead: FOLDER,
  },
  headSize: {
    what: "a head size in Qwen2 that is not hidden_size over the heads",
    where: "a model as GGUF",
    reason: "llama.cpp takes it to be that",
    instead: FOLDER,
  },
  tokenizer: {
    what: "tokenizers that are neither byte-level BPE nor BPE of SentencePiece's kind with tokens for all bytes",
    where: "a model as GGUF",
    reason: "llama.cpp's own tokenizers do not cut texts as they do",
    instead: TOKENS,
  },
  preTokenizer: {
    what: "byte-level BPE that cuts texts by another pattern than those of GPT-2, SmolLM, Llama 3, Qwen, GPT-4o or Tekken",
    where: "a model as GGUF",
    reason: "llama.cpp knows pre-tokenizers by name, and has none for the pattern",
    instead: TOKENS,
  },
  vocabulary: {
    what: "a tokenizer with tokens beyond the embedding's rows, or two tokens of one text",
    where: "a model as GGUF",
    reason: "llama.cpp takes one token a row, each of its own text",
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
    `${file}: ${subject} cannot be written in ${refusal.where}: ${because(refusal)}`,
  );
}
