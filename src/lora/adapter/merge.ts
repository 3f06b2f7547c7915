/** Merges a model's adapters into its weights. */
import { checkFlag, checkKnownOptions } from "../../arguments/check.js";
import { LowrankError } from "../../errors.js";
import { checkModule } from "../../nn/children.js";
import type { Module } from "../../nn/module.js";
import { noGrad, scope } from "../../tensor/scope.js";
import { isTensor, type Tensor } from "../../tensor/tensor.js";
import { removeLayer, unload } from "./active.js";
import type { AnyLoRALayer } from "../layers/any-layer.js";
import { addPathToErrors } from "./path-errors.js";
import { keepTemplates } from "./chat-templates.js";
import { change, listTensorsIn } from "./change.js";
import { listLoraLayers, readNotes, findParents, type AdapterNote } from "./registry.js";
import { checkMergeable } from "../layers/quantised.js";
import { isInPlace } from "../layers/own-class.js";
import { release } from "../layers/release.js";
import { isTokenLayer, mergeTokens, type TokenLayer } from "../layers/token-rows.js";

/**
 * Merges the active adapters of every layer of `model`, which is returned. With `safe` the merged weights are first
 * checked. Throws `ERR_NOT_FINITE` if one is not finite, as when f16 overflows; `ERR_OPTION` if an adapter cannot be
 * merged (one of PEFT's over a grouped convolution); `ERR_DTYPE` if a weight is quantised. Nothing is merged then.
 */
export async function merge<T extends Module>(
  model: T,
  given: { safe?: boolean | undefined } = {},
): Promise<T> {
  checkModule("merge", "model", model);
  const { safe = true } = checkKnownOptions("merge", given, ["safe"]);
  checkFlag("merge", "safe", safe);
  if (safe) await checkMerged(model);
  change(model, () => mergeLayers(model));
  return model;
}

function* listUnmerged(model: Module): IterableIterator<[path: string, layer: AnyLoRALayer]> {
  for (const [path, layer] of listLoraLayers(model))
    if (layer.active.length > 0 && !layer.merged) yield [path, layer];
}

function mergeLayers(model: Module): void {
  for (const [path, layer] of listUnmerged(model)) addPathToErrors("merge", path, () => layer.merge());
}

async function checkMerged(model: Module): Promise<void> {
  for (const [path, layer] of listUnmerged(model)) {
    const largest = addPathToErrors("merge", path, () => noGrad(() => scope(() => measureMerged(layer))));
    const value = await largest.item();
    largest.dispose();
    if (!Number.isFinite(value)) {
      throw new LowrankError(
        "ERR_NOT_FINITE",
        `merge: ${path} with its adapter would hold NaN or infinity; nothing was merged`,
      );
    }
  }
}

/** Returns the largest magnitude of the merged weight as stored, plus the largest magnitude of each low-rank bias. */
function measureMerged(layer: AnyLoRALayer): Tensor {
  const { baseWeight, active, adapters } = layer;
  checkMergeable(baseWeight);
  const weight = baseWeight.to("f32").add(layer.deltaWeight()).to(baseWeight.dtype).to("f32");
  const biases = active.flatMap(({ name }) => adapters.get(name)?.loraBias ?? []);
  // A sum propagates NaN; the maximum of two values may not.
  return biases.reduce((sum, bias) => sum.add(bias.abs().max()), weight.abs().max());
}

/** Restores the base weights of `model`, which is returned, bit for bit. */
export function unmerge<T extends Module>(model: T): T {
  checkModule("unmerge", "model", model);
  change(model, () => {
    for (const [, layer] of listLoraLayers(model)) layer.unmerge();
  });
  return model;
}

/**
 * Merges the active adapters and removes all adapters. `model`, which is returned, becomes a plain model with the sum in
 * its weights. Merged weights and active trained copies no longer require gradients; other tensors are unchanged. Throws
 * as `merge` does, and `ERR_OPTION` if an adapter has a bias (`loraBias`) but its layer has none: the plain model has no
 * parameter for it. Nothing is changed then. Equivalent to PEFT's `merge_and_unload`.
 */
export async function mergeAndUnload<T extends Module>(
  model: T,
  given: { safe?: boolean | undefined } = {},
): Promise<T> {
  checkModule("mergeAndUnload", "model", model);
  const { safe = true } = checkKnownOptions("mergeAndUnload", given, ["safe"]);
  checkFlag("mergeAndUnload", "safe", safe);
  checkBiases(model);
  if (safe) await checkMerged(model);
  keepTemplates(model);
  change(model, () => {
    mergeLayers(model);
    settle(model);
  });
  return model;
}

function checkBiases(model: Module): void {
  for (const [path, layer] of listLoraLayers(model)) {
    if (layer.baseBias !== null) continue;
    const name = layer.active.find((active) => layer.adapters.get(active.name)?.loraBias !== undefined)?.name;
    if (name === undefined) continue;
    throw new LowrankError(
      "ERR_OPTION",
      `mergeAndUnload: ${path} has no bias, so the bias of the adapter "${name}" (loraBias) cannot be merged; keep the adapter unmerged`,
    );
  }
}

/** Makes merged weights and active copies permanent and removes the adapters. */
function settle(model: Module): void {
  const replaced: Tensor[] = [];
  const places = findParents(model);
  for (const [, layer] of [...listLoraLayers(model)]) {
    if (layer.active.length === 0) continue;
    const old = layer.settle();
    // A layer constructed directly may share its weight with another layer, and a user-defined class may store it elsewhere.
    if (layer.replaced !== null && !isInPlace(layer)) replaced.push(...old);
    for (const name of [...layer.adapters.keys()]) layer.removeAdapter(name);
    removeLayer(model, layer, places);
  }
  // Trained copies of modules and biases stay in place as part of the model.
  const frozen: Tensor[] = [];
  for (const { modules, biases } of readNotes(model).values()) {
    replaced.push(...mergeTokenRows(modules));
    for (const { original, copy } of [...modules.values(), ...biases.values()]) {
      for (const copied of [original, copy]) {
        const tensors = isTensor(copied) ? [copied] : [...copied.parameters()];
        replaced.push(...tensors);
        if (copied === copy) frozen.push(...tensors);
      }
    }
    modules.clear();
    biases.clear();
  }
  unload(model);
  const tensors = listTensorsIn(model);
  for (const tensor of frozen) if (tensors.has(tensor) && tensor.requiresGrad) tensor.requiresGrad = false;
  for (const tensor of replaced) if (!tensors.has(tensor)) release(tensor);
}

/** Merges active trained rows into their weights and restores the plain layers. Returns the replaced weights. */
function mergeTokenRows(modules: AdapterNote["modules"]): Tensor[] {
  const old: Tensor[] = [];
  const layers = [...modules].flatMap(([path, { owner, property, copy }]) =>
    isTensor(copy) || !isTokenLayer(copy) ? [] : [{ path, owner, property, copy }],
  );
  const weights = new Map<TokenLayer["rows"], Tensor>();
  for (const tied of [false, true]) {
    for (const { path, owner, property, copy } of layers.filter((layer) => layer.copy.tied === tied)) {
      modules.delete(path);
      if (![...owner.children()].some(([name, child]) => name === property && child === copy)) continue;
      const { base, rows } = copy;
      if (tied) base.weight = weights.get(rows) as Tensor;
      else old.push(mergeTokens(copy));
      weights.set(rows, base.weight);
      owner.replaceChild(property, base);
    }
  }
  for (const { copy } of layers) release(copy);
  return old;
}
