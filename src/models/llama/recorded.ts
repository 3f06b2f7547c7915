/**
 * Records a whole block with a KV cache and without gradients in one call to the engine. In generation most host time
 * is spent crossing into the engine, some twenty times per block. Results equal the block's forward, bit for bit.
 */
import { Linear as LoRALinear, type LinearParts } from "../../lora/layers/linear.js";
import { session } from "../../native/binding.js";
import { Linear } from "../../nn/linear.js";
import type { Module } from "../../nn/module.js";
import { RMSNorm } from "../../nn/norm.js";
import { isTraining } from "../../tensor/scope.js";
import { recordOps, type Tensor } from "../../tensor/tensor.js";
import type { LayerCache } from "../cache.js";
import type { Stream } from "../stream.js";
import { type BlockInputs, LlamaAttention } from "../decoder/attention.js";
import type { LlamaBlock } from "./block.js";
import { LlamaMLP } from "./mlp.js";

/** Ids: both norms, cos and sin, the caches; then weight, bias, A and B of each of the seven linear layers. */
const tensors = new Uint32Array(6 + 7 * 4);
/** Both norms' eps and attention's scale; then the adapter scaling of each linear layer. */
const numbers = new Float64Array(3 + 7);
const NONE = 0xffffffff;

/** Runs `block` in one call; undefined where it is not the plain block that the engine supports. */
export function recordWhole(
  block: LlamaBlock,
  { x, added }: Stream,
  { rotation, keyMask, segments }: BlockInputs,
  cache: LayerCache,
): Stream | undefined {
  const { self_attn: attention, mlp, input_layernorm: first, post_attention_layernorm: second } = block;
  const isOverridden =
    attention.forward === LlamaAttention.prototype.forward &&
    attention.q_norm === undefined &&
    (attention.dropout === 0 || !isTraining(attention)) &&
    mlp.forward === LlamaMLP.prototype.forward &&
    [first, second].every(isPlainNorm);
  if (!isOverridden || (keyMask ?? segments ?? rotation.positions) !== undefined) return undefined;
  const { window, q_proj, k_proj, v_proj, o_proj } = attention;
  const layers = [q_proj, k_proj, v_proj, o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj];
  const [B, T] = x.shape as [number, number, number];
  for (const [i, layer] of layers.entries()) {
    const parts = readLinear(layer, B * T);
    if (parts === undefined) return undefined;
    const { weight, bias, share } = parts;
    const { loraA, loraB } = share?.adapter ?? {};
    tensors.set([weight.id, bias?.id ?? NONE, loraA?.id ?? NONE, loraB?.id ?? NONE], 6 + 4 * i);
    numbers[3 + i] = share?.scaling ?? 0;
  }
  const { k, v } = cache.reserveBuffers(T);
  const { cos, sin } = rotation;
  tensors.set([first.weight.id, second.weight.id, cos.id, sin.id, k.id, v.id]);
  numbers.set([first.eps, second.eps, attention.scale]);
  const outputs = recordOps(() =>
    session().decoderBlock(x.id, added?.id, tensors, numbers, cache.length, window),
  ) as [Tensor, Tensor];
  cache.length += T;
  return { x: outputs[0], added: outputs[1] };
}

function isPlainNorm(norm: RMSNorm): boolean {
  return norm.forward === RMSNorm.prototype.forward && norm.forwardAdded === RMSNorm.prototype.forwardAdded;
}

function readLinear(layer: Module, rows: number): LinearParts | undefined {
  if (layer instanceof LoRALinear) return layer.fanInFanOut ? undefined : layer.findPlainParts(rows);
  if (!(layer instanceof Linear) || layer.forward !== Linear.prototype.forward || layer.fanInFanOut)
    return undefined;
  return layer;
}
