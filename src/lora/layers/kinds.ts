/** Chooses the low-rank layer for a layer to be adapted. */
import { Conv1d as BaseConv1d, Conv2d as BaseConv2d, Conv3d as BaseConv3d } from "../../nn/conv.js";
import { Embedding as BaseEmbedding } from "../../nn/embedding.js";
import { Linear as BaseLinear } from "../../nn/linear.js";
import type { Module } from "../../nn/module.js";
import { Conv1d, Conv2d, Conv3d } from "./conv.js";
import { Embedding } from "./embedding.js";
import { LoRALayer, type AnyLoRALayer } from "./layer.js";
import { Linear } from "./linear.js";
import { adaptInPlace } from "./own-class.js";
import { isStandard } from "./standard.js";

/**
 * Returns a low-rank layer that shares the weights of `layer`. Returns `layer` itself if it is already low-rank or has a
 * user-defined class. The result does not merge in `eval()`.
 */
export function makeAdaptable(layer: Module): AnyLoRALayer {
  if (layer instanceof LoRALayer) return layer;
  if (!isStandard(layer)) return adaptInPlace(layer);
  const options = { mergeWeights: false };
  if (layer instanceof BaseEmbedding) return Embedding.fromBase(layer, options);
  if (layer instanceof BaseConv1d) return Conv1d.fromBase(layer, options);
  if (layer instanceof BaseConv2d) return Conv2d.fromBase(layer, options);
  if (layer instanceof BaseConv3d) return Conv3d.fromBase(layer, options);
  return Linear.fromBase(layer as BaseLinear, options);
}
