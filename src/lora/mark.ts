/** Loralib's two functions over a whole model. */
import { LowrankError } from "../errors.js";
import type { Module } from "../nn/module.js";
import { join } from "../nn/module.js";
import { Tensor } from "../tensor.js";
import { LoRALayer, partsOf } from "./layer.js";

export type BiasMode = "none" | "all" | "lora_only";

/** Refuses what is no mode. */
export function checkBias(bias: string): asserts bias is BiasMode {
  if (bias !== "none" && bias !== "all" && bias !== "lora_only") {
    throw new LowrankError("ERR_OPTION", `bias: "${bias}" is none of none, all, lora_only`);
  }
}

/** Whose tensors are an adapter's: told by the class that owns them, not by their names. */
function* adapterTensors(model: Module): IterableIterator<[path: string, tensor: Tensor]> {
  for (const [path, module] of model.namedModules()) {
    if (!(module instanceof LoRALayer)) continue;
    for (const [name, adapter] of module.adapters) {
      for (const [part, tensor] of partsOf(adapter))
        yield [join(path, module.parameterName(name, part)), tensor];
    }
  }
}

/** Biases, and whether a low-rank layer owns them. */
function* biases(model: Module): IterableIterator<[path: string, tensor: Tensor, lora: boolean]> {
  for (const [path, module] of model.namedModules()) {
    const { bias } = module as { bias?: unknown };
    if (bias instanceof Tensor) yield [join(path, "bias"), bias, module instanceof LoRALayer];
  }
}

/**
 * Freezes everything but the low-rank matrices; `all` also trains every bias, `lora_only` those of
 * low-rank layers. Source: loralib's mark_only_lora_as_trainable.
 */
export function markOnlyLoraAsTrainable(model: Module, bias: BiasMode = "none"): void {
  checkBias(bias);
  const trained = new Set<Tensor>([...adapterTensors(model)].map(([, tensor]) => tensor));
  for (const [, tensor, lora] of biases(model))
    if (bias === "all" || (bias === "lora_only" && lora)) trained.add(tensor);
  for (const tensor of model.parameters()) {
    const on = trained.has(tensor);
    if (tensor.requiresGrad !== on) tensor.requiresGrad = on;
  }
  // What a file gave is frozen and no parameter yet: a bias of it becomes one here.
  for (const tensor of trained) if (!tensor.requiresGrad) tensor.requiresGrad = true;
}

/** The low-rank matrices by path, with the biases that `bias` names. Source: loralib's lora_state_dict. */
export function loraStateDict(model: Module, bias: BiasMode = "none"): Record<string, Tensor> {
  checkBias(bias);
  const state = Object.fromEntries(adapterTensors(model));
  for (const [path, tensor, lora] of biases(model)) {
    if (bias === "all" || (bias === "lora_only" && lora)) state[path] = tensor;
  }
  return state;
}
