/** The order of a model's active adapters. A layer knows only the order of the adapters that it has. */
import type { Module } from "../../nn/module.js";
import type { Active } from "../layers/any-layer.js";

const orders = new WeakMap<Module, readonly Active[]>();

/** Returns the adapters that were last activated, by order. The layers determine whether they are still active. */
export function readOrder(model: Module): readonly Active[] {
  return orders.get(model) ?? [];
}

export function setOrder(model: Module, active: readonly Active[]): void {
  orders.set(model, active);
}
