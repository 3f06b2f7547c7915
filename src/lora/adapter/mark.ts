/** Loralib's two functions over a whole model. */
import { moduleOf } from "../../nn/children.js";
import type { Module } from "../../nn/module.js";
import { join } from "../../nn/module.js";
import { isTensor, type Tensor } from "../../tensor.js";
import { checkBias, type BiasMode } from "../options/bias.js";
import { LoRALayer, partsOf } from "../layers/layer.js";

/** Modules whose biases were marked to be trained with the low-rank matrices. */
const marked = new WeakSet<Module>();

/** Which biases of a model were marked to be trained with its low-rank matrices. */
export function trainedBiases(model: Module): BiasMode {
  const modules = [...model.namedModules()]
    .map(([, module]) => module)
    .filter((module) => marked.has(module));
  if (modules.length === 0) return "none";
  return modules.every(isAdapted) ? "lora_only" : "all";
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

/** Biases, and the modules that own them. */
function* biases(model: Module): IterableIterator<[path: string, tensor: Tensor, owner: Module]> {
  for (const [path, module] of model.namedModules()) {
    const bias = module instanceof LoRALayer ? module.baseBias : (module as { bias?: unknown }).bias;
    if (isTensor(bias)) yield [join(path, "bias"), bias, module];
  }
}

/** Whether a low-rank layer has an adapter: one of rank 0 is a plain layer. */
function isAdapted(module: Module): boolean {
  return module instanceof LoRALayer && module.adapters.size > 0;
}

/**
 * Freezes everything but the low-rank matrices; `all` also trains every bias, `lora_only` those of
 * low-rank layers. Source: loralib's mark_only_lora_as_trainable.
 */
export function markOnlyLoraAsTrainable(model: Module, bias: BiasMode = "none"): void {
  moduleOf("markOnlyLoraAsTrainable", "model", model);
  checkBias(bias);
  const trained = new Set<Tensor>([...adapterTensors(model)].map(([, tensor]) => tensor));
  for (const [, tensor, owner] of biases(model)) {
    marked.delete(owner);
    if (bias === "none" || (bias === "lora_only" && !(owner instanceof LoRALayer))) continue;
    trained.add(tensor);
    marked.add(owner);
  }
  for (const tensor of model.parameters()) {
    const on = trained.has(tensor);
    if (tensor.requiresGrad !== on) tensor.requiresGrad = on;
  }
  // What a file gave is frozen and no parameter yet: a bias of it becomes one here.
  for (const tensor of trained) if (!tensor.requiresGrad) tensor.requiresGrad = true;
}

/** The low-rank matrices by path, with the biases that `bias` names. Source: loralib's lora_state_dict. */
export function loraStateDict(model: Module, bias: BiasMode = "none"): Record<string, Tensor> {
  moduleOf("loraStateDict", "model", model);
  checkBias(bias);
  const state = Object.fromEntries(adapterTensors(model));
  for (const [path, tensor, owner] of biases(model)) {
    if (bias === "all" || (bias === "lora_only" && owner instanceof LoRALayer)) state[path] = tensor;
  }
  return state;
}
