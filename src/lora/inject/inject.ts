/** Adds an adapter to a whole model by replacing layers in place. */
import { Linear } from "../../nn/linear.js";
import { checkModule } from "../../nn/children.js";
import { Module } from "../../nn/module.js";
import { MultiheadAttention } from "../../nn/multihead-attention.js";
import type { Tensor } from "../../tensor/tensor.js";
import { checkAdapterRoom, listParts } from "../layers/adapter.js";
import {
  activateAlso,
  listActive,
  checkCombination,
  installCopies,
  restoreOriginals,
} from "../adapter/active.js";
import type { AnyLoRALayer } from "../layers/any-layer.js";
import { change } from "../adapter/change.js";
import { copyBiases, copyModule, findSavedModules } from "./modules-to-save.js";
import { checkNames } from "./named.js";
import { initialise } from "../init/begin.js";
import { computeStarts, type Starts } from "../init/start.js";
import { makeAdaptable } from "../layers/kinds.js";
import { checkOwnClasses } from "../layers/own-class-check.js";
import { completeOptions, type AdapterOptions, type InjectOptions } from "../options/options.js";
import { compilePatterns } from "../options/patterns.js";
import {
  findAdapter,
  listAdapters,
  checkFree,
  listLoraLayers,
  readNotes,
  findParents,
  type ModuleParents,
  replaceEverywhere,
  type AdapterNote,
} from "../adapter/registry.js";
import { isWithin, listOwnTensors } from "../adapter/replacement.js";
import { findAttention, findTargets, convertTargets, type Targetable } from "../options/targets.js";
import { shareTied, replaceTied } from "./tied.js";
import { listTokenLayers } from "./trainable-tokens.js";

/** The result of `inject`. */
export interface InjectReport {
  /** Paths of the adapted layers. */
  adapted: string[];
  /** The number of trained elements. */
  trainable: number;
  /** The number of elements of the model, adapters included. */
  total: number;
}

/**
 * Adds an adapter to `model` in place: each targeted layer is replaced by a low-rank layer that shares its weights, and
 * the base is frozen. Source: PEFT's inject_adapter_in_model.
 *
 * Throws `ERR_NO_TARGETS`, also for a name in a list that matches nothing; `ERR_ADAPTER_EXISTS`, `ERR_OPTION`. The model
 * is then unchanged.
 */
export async function inject(model: Targetable, given: InjectOptions = {}): Promise<InjectReport> {
  checkModule("inject", "model", model);
  const options = resolveOptions(model, given);
  const layers = selectLayers(model, options);
  checkNames(model, given, { options, adapted: [...layers.keys()] });
  checkOwnClasses("inject", layers, options);
  const starts = await computeStarts(model, layers, options);
  // Another call may have added an adapter of this name while this one read values.
  checkFree(model, options.name, "inject");
  return put(model, starts, { drawn: true, frozen: true });
}

/** @internal Adds an adapter whose values the caller fills in, ignoring its initialisation. Freezes the base unless `frozen` is false. */
export function injectNow(
  model: Targetable,
  given: InjectOptions,
  { frozen = true }: { frozen?: boolean | undefined } = {},
): InjectReport {
  return put(model, { options: resolveOptions(model, given), byPath: new Map() }, { drawn: false, frozen });
}

function resolveOptions(model: Targetable, given: InjectOptions): AdapterOptions {
  const options = completeOptions(model, given);
  checkFree(model, options.name, "inject");
  return replaceTied(model, options);
}

/** Returns the layers to adapt, without layers in fully trained modules. */
function selectLayers(model: Targetable, options: AdapterOptions): Map<string, Module> {
  const saved = findSavedModules(model, options);
  return new Map([...findTargets(model, options)].filter(([path]) => !isWithin(path, saved)));
}

/** How an adapter is added. */
interface Putting {
  /** Whether its values are initialised. */
  drawn: boolean;
  /** Whether everything except adapters is frozen. */
  frozen: boolean;
}

function put(model: Targetable, { options, byPath }: Starts, putting: Putting): InjectReport {
  const first = listAdapters(model).size === 0;
  const added = { name: options.name, weight: 1 };
  const active = listActive(model);
  return change(model, () => {
    // Copies must come from the base's modules and biases, not from another adapter's copies.
    restoreOriginals(model);
    attach(model, { options: { ...options, active: first || options.active }, byPath }, putting);
    if (first || options.active) {
      checkCombination(model, [...active, added]);
      activateAlso(model, added);
    } else installCopies(model, active);
    return { adapted: [...findAdapter(model, added.name).layers.keys()], ...countElements(model) };
  });
}

/** Adds an adapter without activating it. */
function attach(
  model: Targetable,
  { options: requested, byPath: starts }: Starts,
  { drawn, frozen }: Putting,
): void {
  const { evaData: _data, ...options } = requested;
  const saved = findSavedModules(model, options);
  const found = [...selectLayers(model, options)];
  // A loaded adapter may never be trained, so its dropout is accepted here and rejected by forward.
  checkOwnClasses("inject", found, drawn ? options : { ...options, loraDropout: 0 });
  const byPath = new Map(found);
  // As in PEFT, the output projection of an attention layer has the rank and alpha of the attention layer.
  const createLookup = (...pattern: Parameters<typeof compilePatterns>) => {
    const valueOf = compilePatterns(...pattern);
    return (path: string): number | undefined => valueOf(findAttention(path, byPath) ?? path);
  };
  const rankOf = createLookup(options.rankPattern, "rankPattern");
  const alphaOf = createLookup(options.alphaPattern, "alphaPattern");
  const weights = found.map(([path, layer]) => ({ r: rankOf(path) ?? options.r, weight: findWeight(layer) }));
  const elements = weights.reduce((sum, { r, weight }) => sum + r * weight.shape.reduce((a, b) => a + b), 0);
  if (weights[0] !== undefined) checkAdapterRoom("inject", weights[0].weight.device, elements);
  const paths = found.map(([path]) => path);
  const fanInFanOut = found.some(([, layer]) => layer instanceof Linear && layer.fanInFanOut);
  const targets = convertTargets(model, options);
  const adapter: AdapterNote = {
    options: { ...options, fanInFanOut },
    targets,
    modules: listTokenLayers(model, options, { adapted: paths, copied: saved }),
    biases: new Map(),
  };
  // A pattern already selects the layers.
  if (typeof targets === "string") {
    delete adapter.options.layersToTransform;
    delete adapter.options.layersPattern;
  }
  readNotes(model).set(options.name, adapter);
  if (frozen) freeze(model);
  const places = findParents(model);
  for (const [path, layer] of found) {
    const [r = options.r, loraAlpha = options.loraAlpha] = [rankOf(path), alphaOf(path)];
    const { useRslora, useDora, loraBias, loraDropout } = options;
    const target = replaceLayer(model, layer, places);
    const created = target.createAdapter({ r, loraAlpha, loraDropout, useRslora, useDora, loraBias });
    if (drawn) initialise(target, created, options.initLoraWeights, starts.get(path));
    target.addAdapter(options.name, created, false);
  }
  for (const path of saved) adapter.modules.set(path, copyModule(model, path));
  shareTied(model, adapter, saved);
  copyBiases(model, adapter, { adapted: paths, copied: saved });
}

/** Counts the trained elements and all elements of a model. */
export function countElements(model: Module): { trainable: number; total: number } {
  let [trainable, total] = [0, 0];
  const seen = new Set<Tensor>();
  for (const tensor of Object.values(model.stateDict())) {
    if (seen.has(tensor)) continue;
    seen.add(tensor);
    total += tensor.size;
    if (tensor.requiresGrad) trainable += tensor.size;
  }
  return { trainable, total };
}

function findWeight(layer: Module): Tensor {
  return layer instanceof MultiheadAttention ? layer.in_proj_weight : (layer as Linear).weight;
}

/** Clears `requiresGrad` of everything except adapters. */
function freeze(model: Module): void {
  const trained = new Set<Tensor>();
  for (const { modules, biases } of readNotes(model).values()) {
    for (const { copy } of [...modules.values(), ...biases.values()])
      for (const tensor of listOwnTensors(copy)) trained.add(tensor);
  }
  for (const [, layer] of listLoraLayers(model)) {
    for (const adapter of layer.adapters.values())
      for (const [, tensor] of listParts(adapter)) trained.add(tensor);
  }
  for (const tensor of model.parameters())
    if (!trained.has(tensor) && tensor.requiresGrad) tensor.requiresGrad = false;
}

/** Replaces `layer` everywhere in the model by its low-rank layer and returns that. */
function replaceLayer(model: Module, layer: Module, places: ModuleParents): AnyLoRALayer {
  const target = makeAdaptable(layer);
  if (target !== layer) {
    target.replaced = { module: layer };
    replaceEverywhere(model, layer, target, places);
  }
  return target;
}
