/** The metadata of a model's sizes for llama.cpp. Sources: conversion/ and src/models of llama.cpp. */
import type { Architecture } from "../architectures.js";
import { refuseGguf } from "../refusals.js";
import type { GgufValue } from "../writer.js";
import type { Gemma3Config } from "../../models/gemma3/config.js";
import type { GPT2Config } from "../../models/gpt2/config.js";
import type { LlamaConfig } from "../../models/llama/config.js";
import type { Phi3Config } from "../../models/phi3/config.js";
import { convertRope, type WrittenRope } from "./rope.js";

/** The configurations of the families that can be exported. */
export type WrittenConfig = LlamaConfig | Gemma3Config | Phi3Config | GPT2Config;

export interface WrittenModel extends WrittenRope {
  /** Cases in which llama.cpp's results can differ from this library's. */
  notices: string[];
}

/**
 * Returns the keys of a model's sizes, without the architecture's prefix, and the factors of its rotation, which are
 * tensors. Throws `ERR_OPTION` for features that llama.cpp does not read or computes differently.
 */
export function convertModel(file: string, { name }: Architecture, config: WrittenConfig): WrittenModel {
  if (config.modelType === "gpt2") return convertGpt2(file, config);
  const { headDim, maxPositionEmbeddings: positions } = config;
  const rope = convertRope(file, name, config.rope, { headDim, positions });
  const keys: [string, GgufValue][] = [
    ...listSizes(config),
    ["attention.head_count_kv", { u32: config.numKeyValueHeads }],
    ["attention.key_length", { u32: headDim }],
    ["attention.value_length", { u32: headDim }],
    ["attention.layer_norm_rms_epsilon", { f32: config.rmsNormEps }],
    ...rope.keys,
  ];
  const notices: string[] = [];
  if (config.modelType === "gemma3_text") {
    keys.push(...convertGemma3(file, config));
    const { finalLogitSoftcapping: cap } = config;
    if (cap !== undefined) {
      keys.push(["final_logit_softcapping", { f32: cap }]);
      notices.push(`${file}: older versions of llama.cpp leave out the cap of Gemma 3's logits (${cap})`);
    }
  } else notices.push(...listDifferences(file, config));
  if (config.modelType === "phi3")
    keys.push(["attention.sliding_window", { u32: config.slidingWindow ?? 0 }]);
  return { keys, factors: rope.factors, notices };
}

/** Returns the keys that all families share. */
function listSizes(config: WrittenConfig): [string, GgufValue][] {
  return [
    ["vocab_size", { u32: config.vocabSize }],
    ["context_length", { u32: config.maxPositionEmbeddings }],
    ["embedding_length", { u32: config.hiddenSize }],
    ["block_count", { u32: config.numHiddenLayers }],
    ["feed_forward_length", { u32: config.intermediateSize }],
    ["attention.head_count", { u32: config.numAttentionHeads }],
  ];
}

function convertGpt2(file: string, config: GPT2Config): WrittenModel {
  if (config.activation !== "gelu_new" && config.activation !== "gelu_pytorch_tanh")
    refuseGguf("activation", file, `the activation ${config.activation}`);
  if (!config.scaleAttnWeights || config.scaleAttnByInverseLayerIdx)
    refuseGguf("scores", file, "scores that are not divided by the root of the head size alone");
  const keys: [string, GgufValue][] = [
    ...listSizes(config),
    ["attention.layer_norm_epsilon", { f32: config.layerNormEps }],
  ];
  return { keys, factors: [], notices: [] };
}

/** The block count by which llama.cpp recognises Gemma 3 27B, whose scores it scales differently. */
const GEMMA_27B = 62;

function convertGemma3(file: string, config: Gemma3Config): [string, GgufValue][] {
  const { slidingLayers, slidingRope, numHiddenLayers, hiddenSize, numAttentionHeads } = config;
  if (config.attentionBias) refuseGguf("modelBiases", file, "attention_bias");
  if (config.activation !== "gelu_pytorch_tanh" && config.activation !== "gelu_new")
    refuseGguf("activation", file, `the activation ${config.activation}`);
  const scalar = numHiddenLayers === GEMMA_27B ? Math.trunc(hiddenSize / numAttentionHeads) : config.headDim;
  if (config.queryPreAttnScalar !== scalar)
    refuseGguf("scores", file, `query_pre_attn_scalar ${config.queryPreAttnScalar}`);
  if (!slidingLayers.includes(true)) return [];
  if (slidingRope.scaling.type !== "default")
    refuseGguf("rope", file, `rope scaling ${slidingRope.scaling.type} of the layers that slide`);
  const isUsual = slidingLayers.every((slides, i) => slides === ((i + 1) % 6 !== 0));
  return [
    ["attention.sliding_window", { u32: config.slidingWindow }],
    ["rope.freq_base_swa", { f32: slidingRope.theta }],
    ...(isUsual
      ? []
      : [["attention.sliding_window_pattern", { bools: slidingLayers }] satisfies [string, GgufValue]]),
  ];
}

/** Rejects features that llama.cpp's Llama, Qwen and Phi lack; returns notices about differences in long texts. */
function listDifferences(file: string, config: LlamaConfig | Phi3Config): string[] {
  const { modelType, slidingWindow: window, maxPositionEmbeddings: positions, rope } = config;
  if (modelType === "qwen3" && (config.attentionBias || config.attentionOutputBias))
    refuseGguf("modelBiases", file, "attention_bias");
  if (modelType === "qwen2" && config.headDim * config.numAttentionHeads !== config.hiddenSize)
    refuseGguf("headSize", file, `head_dim ${config.headDim}`);
  const notices: string[] = [];
  if (window !== undefined && window < positions)
    notices.push(
      `${file}: llama.cpp does not apply this model's sliding window of ${window}, so results differ for longer texts`,
    );
  if (rope.scaling.type === "longrope")
    notices.push(
      `${file}: llama.cpp chooses the factors for long texts by its context size, not by the text: keep the size at ` +
        `${rope.scaling.originalMaxPositionEmbeddings} or below for texts that are no longer`,
    );
  return notices;
}
