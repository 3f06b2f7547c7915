/** Layers whose adapters count for nothing, for the code that runs now. */
import { AsyncLocalStorage } from "node:async_hooks";

import type { Module } from "../../nn/module.js";

const disabled = new AsyncLocalStorage<ReadonlySet<Module>>();

/** Runs `fn`, in which the adapters of `layers` count for nothing. */
export function without<T>(layers: Iterable<Module>, fn: () => T): T {
  return disabled.run(new Set([...(disabled.getStore() ?? []), ...layers]), fn);
}

/** Whether the adapters of `layer` are off just now. */
export function isOff(layer: Module): boolean {
  return disabled.getStore()?.has(layer) ?? false;
}
