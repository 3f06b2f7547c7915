/** Which layers can be adapted, and what takes their places. */
import { Embedding as BaseEmbedding } from "../nn/embedding.js";
import { Linear as BaseLinear } from "../nn/linear.js";
import type { Module } from "../nn/module.js";
import { Embedding } from "./embedding.js";
import { LoRALayer, type AnyLoRALayer } from "./layer.js";
import { Linear } from "./linear.js";

/** Whether an adapter can be given to `module`. */
export function isAdaptable(module: Module): boolean {
  return module instanceof LoRALayer || module instanceof BaseLinear || module instanceof BaseEmbedding;
}

/** The low-rank layer for `layer`, whose weights it keeps: itself where it is one. It merges only when told to. */
export function adaptable(layer: Module): AnyLoRALayer {
  if (layer instanceof LoRALayer) return layer;
  if (layer instanceof BaseEmbedding) return Embedding.fromBase(layer, { mergeWeights: false });
  return Linear.fromBase(layer as BaseLinear, { mergeWeights: false });
}
