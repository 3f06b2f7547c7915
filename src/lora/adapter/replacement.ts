/** What an adapter has of its own in the place of a module or a bias of the model. */
import { Module } from "../../nn/module.js";
import { isTensor, type Tensor } from "../../tensor.js";
import { isTokenLayer, tokenState } from "../layers/token-rows.js";

/** A module or a bias that an adapter has of its own, and what it stands for. */
export interface Replacement {
  owner: Module;
  property: string;
  original: Module | Tensor;
  copy: Module | Tensor;
}

/** The tensors that a copy has of its own. */
export function ownTensors(copy: Replacement["copy"]): Tensor[] {
  if (isTensor(copy)) return [copy];
  return isTokenLayer(copy) ? Object.values(tokenState(copy)) : [...copy.parameters()];
}

/** What an adapter's file holds of a copied module, under the module's path. */
export function savedTensors(copy: Module): Record<string, Tensor> {
  return isTokenLayer(copy) ? tokenState(copy) : copy.stateDict();
}

/** Whether a path is one of `modules` or lies in one. */
export function isWithin(path: string, modules: readonly string[]): boolean {
  return modules.some((outer) => path === outer || path.startsWith(`${outer}.`));
}
