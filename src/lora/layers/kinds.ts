/** What takes the place of a layer that is adapted. */
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
 * The low-rank layer for `layer`, whose weights it keeps: itself where it is one, or is of a user's own class. It merges
 * only when told to.
 */
export function adaptable(layer: Module): AnyLoRALayer {
  if (layer instanceof LoRALayer) return layer;
  if (!isStandard(layer)) return adaptInPlace(layer);
  const options = { mergeWeights: false };
  if (layer instanceof BaseEmbedding) return Embedding.fromBase(layer, options);
  if (layer instanceof BaseConv1d) return Conv1d.fromBase(layer, options);
  if (layer instanceof BaseConv2d) return Conv2d.fromBase(layer, options);
  if (layer instanceof BaseConv3d) return Conv3d.fromBase(layer, options);
  return Linear.fromBase(layer as BaseLinear, options);
}
