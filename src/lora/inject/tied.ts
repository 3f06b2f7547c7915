/** Layers that share the weight of the input embedding. */
import { Embedding } from "../../nn/embedding.js";
import { Linear } from "../../nn/linear.js";
import type { Module } from "../../nn/module.js";
import { copyModule } from "./modules-to-save.js";
import type { AdapterOptions } from "../options/options.js";
import { compilePythonRegex } from "../options/python-regex.js";
import type { AdapterNote } from "../adapter/registry.js";
import { findTargets, type Targetable } from "../options/targets.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { createRefusal } from "../../refusals/refusal.js";

/** Returns the path of the input embedding, as the model reports it or by its usual name. */
export function findInputEmbedding(model: Targetable): string | undefined {
  const embedding = model.getInputEmbedding?.();
  for (const [path, module] of model.namedModules())
    if (embedding === undefined ? /(^|\.)embed_tokens$/.test(path) : module === embedding) return path;
  return undefined;
}

/** Returns the paths of the linear layers that share the embedding's weight. */
export function listTied(model: Module, embedding: Embedding): string[] {
  return [...model.namedModules()]
    .filter(([, module]) => module instanceof Linear && module.weight === embedding.weight)
    .map(([path]) => path);
}

/** Names of input embeddings and heads for which weight tying is checked. */
const EMBEDDINGS = ["embed_tokens", "lm_head"];

/** Returns the input embedding and the layers tied to it; undefined if there are none. */
function findTied(model: Targetable): { path: string; embedding: Embedding; tied: string[] } | undefined {
  const path = findInputEmbedding(model);
  const embedding = [...model.namedModules()].find(([modulePath]) => modulePath === path)?.[1];
  if (path === undefined || !(embedding instanceof Embedding)) return undefined;
  const tied = listTied(model, embedding);
  return tied.length === 0 ? undefined : { path, embedding, tied };
}

/**
 * With `ensureWeightTying`, replaces tied layers in `modulesToSave` by the embedding that they share.
 * Source: PEFT's _add_modules_to_save_to_tie.
 */
export function replaceTied(model: Targetable, options: AdapterOptions): AdapterOptions {
  if (!options.ensureWeightTying) return options;
  const found = findTied(model);
  if (found === undefined) return options;
  const last = (path: string): string => path.split(".").at(-1) as string;
  if (!options.modulesToSave.some((name) => EMBEDDINGS.includes(last(name)))) {
    const targeted = [found.path, ...found.tied].filter((path) => findTargets(model, options).has(path));
    if (targeted.length > 0)
      throw createRefusal(ADAPTER_REFUSALS.tiedAdapter, "inject", targeted.join(" and "));
    return options;
  }
  const names = [...options.modulesToSave];
  if (!names.includes(found.path)) names.push(found.path);
  for (const path of found.tied) {
    const index = names.findIndex((name) =>
      compilePythonRegex(name, "modulesToSave", (body) => `^(?:|.*\\.)${body}(?:$|\\..*)`).test(path),
    );
    if (index >= 0) names.splice(index, 1);
  }
  return { ...options, modulesToSave: names };
}

/** Copies the layers tied to a copied embedding, too, and lets them share the copy's weight. */
export function shareTied(model: Targetable, adapter: AdapterNote, copied: readonly string[]): void {
  const found = adapter.options.ensureWeightTying ? findTied(model) : undefined;
  const embedding = found === undefined ? undefined : adapter.modules.get(found.path)?.copy;
  if (found === undefined || !copied.includes(found.path) || !(embedding instanceof Embedding)) return;
  for (const path of found.tied) {
    const replacement = copyModule(model, path);
    const copy = replacement.copy as Linear;
    copy.weight.dispose();
    copy.weight = embedding.weight;
    adapter.modules.set(path, replacement);
  }
}
