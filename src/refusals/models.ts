/** Unsupported model configurations and inputs of forward. */
import type { Refusal } from "./refusal.js";

export const MODEL_REFUSALS = {
  quantised: {
    what: "quantised weights",
    where: "by quantization_config",
    reason: "this quantisation is not supported",
    instead: "take the plain model",
  },
  decoding: {
    what: "models with several parts or other attention",
    where: "with is_decoder, add_cross_attention or use_bidirectional_attention true",
    reason: "only self-attention in one direction per family is supported",
    instead: "take a model without",
  },
  attentionCap: {
    what: "attn_logit_softcapping",
    where: "in Gemma 3",
    reason: "the attention kernels do not store the scores",
    instead: "take a model without",
  },
  partialRotary: {
    what: "partial_rotary_factor",
    where: "other than 1, except in Phi-3",
    reason: "rotary embeddings are applied to whole heads",
    instead: "take a model without",
  },
  ropeScaling: {
    what: "rope scalings",
    where: "other than default, linear, dynamic, llama3, yarn and longrope (of Phi-3, default and longrope)",
    reason: "only these scalings are supported",
    instead: "take a model without",
  },
  phiScaling: {
    what: "rope scalings",
    where: "of Phi-3 other than default and longrope",
    reason: "only these two scalings are supported",
    instead: "take a model without",
  },
  packedAdapters: {
    what: "`adapterPerRow`",
    where: "with `positionIds` that pack several texts into a row",
    reason: "it selects one adapter per row of the batch",
    instead: "give each text a separate row",
  },
  smoothedLabels: {
    what: "`labelSmoothing`",
    where: "with values or several labels per row",
    reason: "it is defined for a single label",
    instead: "leave it out",
  },
  ggufShards: {
    what: "`maxShardBytes`",
    where: "with the format gguf",
    reason: "a GGUF file is one file",
    instead: "leave it out",
  },
  revisionOfFolder: {
    what: "a revision",
    where: "of a model on this machine",
    reason: "only a model of a hub has one",
    instead: "leave it out",
  },
  sentenceModules: {
    what: "modules of sentence-transformers",
    where: "other than Transformer, Pooling and Normalize, in this order",
    reason: "only these modules are supported",
    instead: "name `pooling` and `normalize` to embed by the transformer alone, without these modules",
  },
  sentencePooling: {
    what: "poolings of sentence-transformers",
    where: "other than mean, cls, max, mean_sqrt_len_tokens, weightedmean and lasttoken",
    reason: "only these poolings are supported",
    instead: "name `pooling` and `normalize`",
  },
  savedAdapters: {
    what: "saveModel",
    where: "of a model with adapters",
    reason: "transformers' folder format cannot store them",
    instead: "call mergeAndUnload or unload first, or saveAdapter",
  },
  savedOwn: {
    what: "saveModel",
    where: "of a model with modules, tensors or a forward that its configuration does not describe",
    reason: "the folder would not load, or the loaded model would compute something else",
    instead: "put the model's layers back, or store the state dict with safetensors.save",
  },
} as const satisfies Record<string, Refusal>;
