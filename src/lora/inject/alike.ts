/** Copies the adapters of a model to a similar one: the same tensor shapes, without the values. */
import { Module } from "../../nn/module.js";
import type { Tensor } from "../../tensor/tensor.js";
import { activate, listActive } from "../adapter/active.js";
import {
  findAdapter,
  listAdapters,
  listLoraLayers,
  findParents,
  replaceEverywhere,
  type ModelAdapter,
} from "../adapter/registry.js";
import { listOwnTensors } from "../adapter/replacement.js";
import { copyAsStart } from "../init/begin.js";
import { listParts, type Adapter, type FreshOptions } from "../layers/adapter.js";
import { makeAdaptable } from "../layers/kinds.js";
import type { Targetable } from "../options/targets.js";
import { injectNow } from "./inject.js";

/**
 * Gives `likeness`, the same model without adapters, the adapters of `model`, with the same active, trained and merged state.
 * Adapters of directly constructed layers are added as if by `inject`.
 */
export function adaptLike(model: Targetable, likeness: Targetable): void {
  for (const adapter of listAdapters(model).values()) {
    const { name, note } = adapter;
    if (note === undefined) adaptLayers(likeness, adapter);
    else
      injectNow(likeness, { ...note.options, fanInFanOut: "auto", name, active: false }, { frozen: false });
    const target = findAdapter(likeness, name);
    for (const [path, layer] of adapter.layers) {
      const from = layer.findAdapter(name);
      const to = target.layers.get(path)?.adapters.get(name);
      if (to === undefined) continue;
      if (from.start !== undefined) to.start = copyAsStart(to);
      const parts = new Map(listParts(to));
      for (const [part, tensor] of listParts(from)) copyRequiresGrad(parts.get(part), tensor);
    }
    for (const which of ["modules", "biases"] as const) {
      for (const [path, { copy }] of adapter[which]) {
        const to = target[which].get(path);
        const tensors = to === undefined ? [] : listOwnTensors(to.copy);
        for (const [i, tensor] of listOwnTensors(copy).entries()) copyRequiresGrad(tensors[i], tensor);
      }
    }
  }
  activate(likeness, listActive(model));
  const merged = new Set([...listLoraLayers(model)].flatMap(([path, layer]) => (layer.merged ? [path] : [])));
  for (const [path, layer] of listLoraLayers(likeness)) if (merged.has(path)) layer.merge();
}

/** Copies `requiresGrad` from one tensor to another. */
function copyRequiresGrad(to: Tensor | undefined, { requiresGrad }: Tensor): void {
  if (to !== undefined && to.requiresGrad !== requiresGrad) to.requiresGrad = requiresGrad;
}

/** Adds an adapter without a note, layer by layer. */
function adaptLayers(likeness: Module, { name, layers }: ModelAdapter): void {
  const places = findParents(likeness);
  const standing = new Map(likeness.namedModules());
  for (const [path, layer] of layers) {
    const base = standing.get(path);
    if (base === undefined) continue;
    const target = makeAdaptable(base);
    if (target !== base) {
      target.replaced = { module: base };
      replaceEverywhere(likeness, base, target, places);
    }
    target.addAdapter(name, target.createAdapter(readOptions(layer.findAdapter(name))), false);
  }
}

/** Returns the options that make an equal adapter of a layer. */
function readOptions(adapter: Adapter): FreshOptions {
  const { r, loraAlpha, loraDropout, useRslora, magnitude, loraBias } = adapter;
  return {
    r,
    loraAlpha,
    loraDropout,
    useRslora,
    useDora: magnitude !== undefined,
    loraBias: loraBias !== undefined,
  };
}
