/** An adapter's copies of modules and biases. */
import { Module } from "../../nn/module.js";
import { isTensor, type Tensor } from "../../tensor/tensor.js";
import { isTokenLayer, listTokenState } from "../layers/token-rows.js";

/** An adapter's copy of a module or a bias, and the original. */
export interface Replacement {
  owner: Module;
  property: string;
  original: Module | Tensor;
  copy: Module | Tensor;
}

/** Returns the tensors that belong to a copy and not to the base. */
export function listOwnTensors(copy: Replacement["copy"]): Tensor[] {
  if (isTensor(copy)) return [copy];
  return isTokenLayer(copy) ? Object.values(listTokenState(copy)) : [...copy.parameters()];
}

/** Returns the tensors of a copied module in the adapter's file, by key below the module's path. */
export function listSavedTensors(copy: Module): Record<string, Tensor> {
  return isTokenLayer(copy) ? listTokenState(copy) : copy.stateDict();
}

/** Whether a path is one of `modules` or below one. */
export function isWithin(path: string, modules: readonly string[]): boolean {
  return modules.some((outer) => path === outer || path.startsWith(`${outer}.`));
}
