/** In which order a model's active adapters count: layers that hold some of them alone cannot tell. */
import type { Module } from "../../nn/module.js";
import type { Active } from "../layers/any-layer.js";

const orders = new WeakMap<Module, readonly Active[]>();

/** What was made active last, in its order; the layers say what is. */
export function orderOf(model: Module): readonly Active[] {
  return orders.get(model) ?? [];
}

export function setOrder(model: Module, active: readonly Active[]): void {
  orders.set(model, active);
}
