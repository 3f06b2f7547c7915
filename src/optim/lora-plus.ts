import { checkNumberThat, checkKnownOptions } from "../arguments/check.js";
import { checkModule } from "../nn/children.js";
import { Embedding } from "../nn/embedding.js";
import { join, type Module } from "../nn/module.js";
import type { Tensor } from "../tensor/tensor.js";
import type { AdamWOptions } from "./adamw.js";
import type { ParameterGroup } from "./optimizer.js";

/** The options of `loraPlusGroups`; rates are 0 or more. */
export interface LoraPlusOptions {
  /** The learning rate of all parameters except B. */
  lr: number;
  /** The learning rate of B, as a multiple of `lr`. */
  ratio: number;
  /** The learning rate of adapted embeddings; 1e-6 by default, as in PEFT. */
  lrEmbedding?: number | undefined;
}

/**
 * Parameter groups for LoRA+ (Hayou et al. 2024): B learns `ratio` times as fast as A. As PEFT's `create_loraplus_optimizer`: vectors
 * are in B's group, and biases have no weight decay. Only parameters that require a gradient are included. Throws `ERR_OPTION`.
 */
export function loraPlusGroups(model: Module, options: LoraPlusOptions): ParameterGroup<AdamWOptions>[] {
  const where = "loraPlusGroups";
  checkModule(where, "model", model);
  const { lr, ratio, lrEmbedding = 1e-6 } = checkKnownOptions(where, options, ["lr", "ratio", "lrEmbedding"]);
  const isRate = (n: number): boolean => n >= 0 && Number.isFinite(n);
  for (const [option, value] of Object.entries({ lr, ratio, lrEmbedding }))
    checkNumberThat(where, option, value, isRate, "0 or more");
  const groups = {
    a: { params: [] as Tensor[], lr },
    embedding: { params: [] as Tensor[], lr: lrEmbedding },
    b: { params: [] as Tensor[], lr: lr * ratio },
    biases: { params: [] as Tensor[], lr: lr * ratio, weightDecay: 0 },
  };
  const seen = new Set<Tensor>();
  for (const [path, module] of model.namedModules()) {
    for (const [name, tensor] of module.ownParameters()) {
      if (!tensor.requiresGrad || seen.has(tensor)) continue;
      seen.add(tensor);
      groups[chooseGroup(module, name, join(path, name), tensor)].params.push(tensor);
    }
  }
  return Object.values(groups).filter(({ params }) => params.length > 0);
}

function chooseGroup(
  module: Module,
  name: string,
  path: string,
  tensor: Tensor,
): "a" | "embedding" | "b" | "biases" {
  // Its low-rank factors, but not a weight that is trained whole or by rows.
  if (module instanceof Embedding && name.startsWith("lora_")) return "embedding";
  if (tensor.shape.length !== 1) return /(^|\.)lora_B(\.|$)/.test(path) ? "b" : "a";
  return path.endsWith("bias") ? "biases" : "b";
}
