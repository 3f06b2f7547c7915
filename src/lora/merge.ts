/** Merging a whole model's adapters into its weights. */
import { LowrankError } from "../errors.js";
import type { Module } from "../nn/module.js";
import { noGrad, scope } from "../scope.js";
import { parameter, Tensor } from "../tensor.js";
import { unload } from "./active.js";
import { tensorsOf } from "./adapter.js";
import type { AnyLoRALayer } from "./any-layer.js";
import { adaptersOf, loraLayers, parentOf, type ModelAdapter } from "./registry.js";
import { isTokenLayer, mergeTokens, type TokenLayer } from "./token-rows.js";

/**
 * Merges the active adapters of every layer. With `safe` what would stand in the layers is looked
 * at first, and where it is not finite, as an f16 weight may overflow, it is `ERR_NOT_FINITE`, with
 * nothing changed.
 */
export async function merge<T extends Module>(model: T, { safe = true } = {}): Promise<T> {
  const layers = [...loraLayers(model)].filter(([, layer]) => layer.active.length > 0 && !layer.merged);
  if (safe) {
    for (const [path, layer] of layers) {
      const largest = noGrad(() => scope(() => largestMerged(layer)));
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
  for (const [, layer] of layers) layer.merge();
  return model;
}

/** The largest magnitude of the merged weight, as it would be stored, and of the biases that go into the bias. */
function largestMerged(layer: AnyLoRALayer): Tensor {
  const { baseWeight, active, adapters: own } = layer;
  const weight = baseWeight.to("f32").add(layer.deltaWeight()).to(baseWeight.dtype).to("f32");
  const biases = active.flatMap(({ name }) => own.get(name)?.loraBias ?? []);
  // A sum keeps NaN, where a maximum of two need not.
  return biases.reduce((sum, bias) => sum.add(bias.abs().max()), weight.abs().max());
}

/** Restores the base weights, to the bit. */
export function unmerge<T extends Module>(model: T): T {
  for (const [, layer] of loraLayers(model)) layer.unmerge();
  return model;
}

/** Merges the active adapters and takes all adapters off: a plain model with the sum in its weights. */
export async function mergeAndUnload<T extends Module>(model: T, { safe = true } = {}): Promise<T> {
  await merge(model, { safe });
  const replaced: Tensor[] = [];
  for (const [path, layer] of [...loraLayers(model)]) {
    if (layer.replaced === null || layer.unmergedWeight === null) continue;
    const base = layer.replaced.module as Module & { weight: Tensor; bias?: Tensor | null };
    replaced.push(layer.unmergedWeight.tensor);
    base.weight = parameter(layer.weight, false);
    if (layer.bias !== undefined) base.bias = layer.bias && parameter(layer.bias, false);
    const [owner, property] = parentOf(model, path);
    owner.replaceChild(property, base);
    for (const adapter of layer.adapters.values()) replaced.push(...tensorsOf(adapter));
  }
  // Trained copies of modules and biases stay where they are: they are the model now.
  for (const { modules, biases } of adaptersOf(model).values()) {
    replaced.push(...mergedTokens(modules));
    for (const { original, copy } of [...modules.values(), ...biases.values()]) {
      for (const one of [original, copy])
        replaced.push(...(one instanceof Tensor ? [one] : one.parameters()));
    }
    modules.clear();
    biases.clear();
  }
  unload(model);
  const own = new Set(model.parameters());
  for (const tensor of own) if (tensor.requiresGrad) tensor.requiresGrad = false;
  for (const tensor of replaced) if (!own.has(tensor)) tensor.dispose();
  return model;
}

/** Puts trained rows that count into their weights, and the plain layers back; gives the weights that go. */
function mergedTokens(modules: ModelAdapter["modules"]): Tensor[] {
  const old: Tensor[] = [];
  const layers = [...modules].flatMap(([path, { owner, property, copy }]) =>
    copy instanceof Tensor || !isTokenLayer(copy) ? [] : [{ path, owner, property, copy }],
  );
  const weights = new Map<TokenLayer["rows"], Tensor>();
  for (const tied of [false, true]) {
    for (const { path, owner, property, copy } of layers.filter((one) => one.copy.tied === tied)) {
      modules.delete(path);
      if (![...owner.children()].some(([name, child]) => name === property && child === copy)) continue;
      const { base, rows } = copy;
      if (tied) base.weight = weights.get(rows) as Tensor;
      else old.push(mergeTokens(copy));
      weights.set(rows, base.weight);
      owner.replaceChild(property, base);
    }
  }
  for (const { copy } of layers) copy.dispose();
  return old;
}
