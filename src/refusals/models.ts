/** Unsupported model configurations and inputs of forward. */
import type { Refusal } from "./refusal.js";

export const MODEL_REFUSALS = {
  quantised: {
    what: "weights that are quantised",
    where: "by quantization_config",
    reason: "their blocks are not read",
    instead: "take the plain model",
  },
  decoding: {
    what: "models of several parts, or of another attention",
    where: "by is_decoder, add_cross_attention or use_bidirectional_attention, where they are true",
    reason: "their forward is not built",
    instead: "take a model without",
  },
  attentionCap: {
    what: "attn_logit_softcapping",
    where: "in Gemma 3",
    reason: "attention's kernels hold no scores that could be capped",
    instead: "take a model without",
  },
  partialRotary: {
    what: "partial_rotary_factor",
    where: "other than 1, except in Phi-3",
    reason: "whole heads are turned",
    instead: "take a model without",
  },
  ropeScaling: {
    what: "rope scalings",
    where: "other than default, linear, dynamic, llama3, yarn and longrope (of Phi-3, default and longrope)",
    reason: "their frequencies are not built",
    instead: "take a model without",
  },
  phiScaling: {
    what: "rope scalings",
    where: "of Phi-3 other than default and longrope",
    reason: "their frequencies are not built",
    instead: "take a model without",
  },
  packedAdapters: {
    what: "`adapterPerRow`",
    where: "with `positionIds` that put several texts into a row",
    reason: "it gives each row of the batch an adapter, and so all of its texts",
    instead: "give each text a row of its own",
  },
  smoothedLabels: {
    what: "`labelSmoothing`",
    where: "with values or several labels a row",
    reason: "it spreads a single label over the others",
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
    reason: "their layers are not built",
    instead: "name `pooling` and `normalize` to embed by the transformer alone, without these modules",
  },
  sentencePooling: {
    what: "poolings of sentence-transformers",
    where: "other than mean, cls, max, mean_sqrt_len_tokens, weightedmean and lasttoken",
    reason: "they are not built",
    instead: "name `pooling` and `normalize`",
  },
  savedAdapters: {
    what: "saveModel",
    where: "of a model with adapters",
    reason: "a folder of transformers' has no place for them",
    instead: "call mergeAndUnload or unload first, or saveAdapter",
  },
  savedOwn: {
    what: "saveModel",
    where: "of a model with modules, tensors or a forward that its configuration does not describe",
    reason: "the folder would not load, or the loaded model would compute something else",
    instead: "put the model's layers back, or store the state dict with safetensors.save",
  },
} as const satisfies Record<string, Refusal>;
