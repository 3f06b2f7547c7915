/** Loralib's functions `mark_only_lora_as_trainable` and `lora_state_dict`. */
import { checkModule } from "../../nn/children.js";
import type { Module } from "../../nn/module.js";
import { join } from "../../nn/module.js";
import { isTensor, type Tensor } from "../../tensor/tensor.js";
import { checkBias, type BiasMode } from "../options/bias.js";
import { LoRALayer, listParts } from "../layers/layer.js";

/** Modules whose biases are trained together with the low-rank matrices. */
const marked = new WeakSet<Module>();

/** Returns which biases of a model are trained together with its low-rank matrices. */
export function findTrainedBiases(model: Module): BiasMode {
  const modules = [...model.namedModules()]
    .map(([, module]) => module)
    .filter((module) => marked.has(module));
  if (modules.length === 0) return "none";
  return modules.every(isAdapted) ? "lora_only" : "all";
}

/** Yields the adapters' tensors, found by the class of their layer rather than by name. */
function* listAdapterTensors(model: Module): IterableIterator<[path: string, tensor: Tensor]> {
  for (const [path, module] of model.namedModules()) {
    if (!(module instanceof LoRALayer)) continue;
    for (const [name, adapter] of module.adapters) {
      for (const [part, tensor] of listParts(adapter))
        yield [join(path, module.formatParameterName(name, part)), tensor];
    }
  }
}

/** Yields biases and the modules that own them. */
function* listBiases(model: Module): IterableIterator<[path: string, tensor: Tensor, owner: Module]> {
  for (const [path, module] of model.namedModules()) {
    const bias = module instanceof LoRALayer ? module.baseBias : (module as { bias?: unknown }).bias;
    if (isTensor(bias)) yield [join(path, "bias"), bias, module];
  }
}

/** Whether a low-rank layer has an adapter; one of rank 0 does not. */
function isAdapted(module: Module): boolean {
  return module instanceof LoRALayer && module.adapters.size > 0;
}

/**
 * Freezes everything except the low-rank matrices. With `all` every bias is also trained, with `lora_only` every bias of
 * a low-rank layer. Source: loralib's mark_only_lora_as_trainable.
 */
export function markOnlyLoraAsTrainable(model: Module, bias: BiasMode = "none"): void {
  checkModule("markOnlyLoraAsTrainable", "model", model);
  checkBias(bias);
  const trained = new Set<Tensor>([...listAdapterTensors(model)].map(([, tensor]) => tensor));
  for (const [, tensor, owner] of listBiases(model)) {
    marked.delete(owner);
    if (bias === "none" || (bias === "lora_only" && !(owner instanceof LoRALayer))) continue;
    trained.add(tensor);
    marked.add(owner);
  }
  for (const tensor of model.parameters()) {
    const on = trained.has(tensor);
    if (tensor.requiresGrad !== on) tensor.requiresGrad = on;
  }
  // A bias loaded from a file is frozen and therefore not among the parameters above.
  for (const tensor of trained) if (!tensor.requiresGrad) tensor.requiresGrad = true;
}

/** Returns the low-rank matrices by path, and the biases that `bias` selects. Source: loralib's lora_state_dict. */
export function loraStateDict(model: Module, bias: BiasMode = "none"): Record<string, Tensor> {
  checkModule("loraStateDict", "model", model);
  checkBias(bias);
  const state = Object.fromEntries(listAdapterTensors(model));
  for (const [path, tensor, owner] of listBiases(model)) {
    if (bias === "all" || (bias === "lora_only" && owner instanceof LoRALayer)) state[path] = tensor;
  }
  return state;
}
