/** Which adapters a model has, kept beside it, and where their parts are in it. */
import { LowrankError } from "../errors.js";
import { Module } from "../nn/module.js";
import { LoRALayer, type AnyLoRALayer } from "./layer.js";
import type { AdapterOptions } from "./options.js";
import type { Replacement } from "./replacement.js";
import type { Targets } from "./targets.js";

/** One adapter of a model. */
export interface ModelAdapter {
  options: AdapterOptions;
  /** Targets as PEFT writes them. */
  targets: Targets;
  /** Paths of the adapted layers. */
  paths: string[];
  /** Trained copies by path of the module, or of the bias. */
  modules: Map<string, Replacement>;
  biases: Map<string, Replacement>;
}

const adapted = new WeakMap<Module, Map<string, ModelAdapter>>();

/** The adapters of a model by name. */
export function adaptersOf(model: Module): Map<string, ModelAdapter> {
  let own = adapted.get(model);
  if (own === undefined) adapted.set(model, (own = new Map()));
  return own;
}

/** Names of the adapters that a model has. */
export function adapters(model: Module): string[] {
  return [...adaptersOf(model).keys()];
}

/** The adapter called `name`. Throws `ERR_UNKNOWN_ADAPTER`, listing those loaded. */
export function adapterOf(model: Module, name: string): ModelAdapter {
  const adapter = adaptersOf(model).get(name);
  if (adapter === undefined) {
    const loaded = adapters(model)
      .map((n) => `"${n}"`)
      .join(", ");
    throw new LowrankError(
      "ERR_UNKNOWN_ADAPTER",
      `there is no adapter named "${name}"; loaded: ${loaded || "none"}`,
    );
  }
  return adapter;
}

/** Low-rank layers of a model by path. */
export function* loraLayers(model: Module): IterableIterator<[path: string, layer: AnyLoRALayer]> {
  for (const [path, module] of model.namedModules()) if (module instanceof LoRALayer) yield [path, module];
}

/** The module that holds `path`, under which name, and the module there. */
export function parentOf(model: Module, path: string): [owner: Module, property: string, module: Module] {
  for (const [prefix, module] of model.namedModules()) {
    if (prefix !== "" && !path.startsWith(`${prefix}.`)) continue;
    for (const [name, child] of module.children()) {
      if ((prefix === "" ? name : `${prefix}.${name}`) === path) return [module, name, child];
    }
  }
  throw new LowrankError("ERR_INTERNAL", `no module holds ${path}`);
}
