/** Disables the adapters of layers within one asynchronous context. */
import { AsyncLocalStorage } from "node:async_hooks";

import type { Module } from "../../nn/module.js";

const disabled = new AsyncLocalStorage<ReadonlySet<Module>>();

/** Runs `fn` with the adapters of `layers` disabled. */
export function runWithDisabled<T>(layers: Iterable<Module>, fn: () => T): T {
  return disabled.run(new Set([...(disabled.getStore() ?? []), ...layers]), fn);
}

/** Whether the adapters of `layer` are currently disabled. */
export function isDisabled(layer: Module): boolean {
  return disabled.getStore()?.has(layer) ?? false;
}
