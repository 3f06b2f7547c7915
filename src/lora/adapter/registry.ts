/**
 * The adapters of a model. Each low-rank layer holds its adapters by name, and every call searches the layers, so layers
 * may be added, replaced or removed at any time. State that belongs to no layer (the options of `inject`, trained copies
 * of modules and biases) is kept in a note per adapter.
 */
import { LowrankError } from "../../errors.js";
import { checkModule } from "../../nn/children.js";
import { join, Module } from "../../nn/module.js";
import type { AnyLoRALayer } from "../layers/any-layer.js";
import { LoRALayer } from "../layers/layer.js";
import { didYouMean } from "../../arguments/suggest.js";
import type { AdapterOptions } from "../options/options.js";
import type { ChatTemplates } from "./chat-templates.js";
import type { Replacement } from "./replacement.js";
import type { Targets } from "../options/targets.js";

/** Information about an adapter from `inject` or a file. */
export interface AdapterNote {
  options: AdapterOptions;
  /** Targets in PEFT's form. */
  targets: Targets;
  /** Trained copies, by path of the module or of the bias's module. */
  readonly modules: Map<string, Replacement>;
  readonly biases: Map<string, Replacement>;
  /** The chat templates that the adapter was loaded with. */
  templates?: ChatTemplates | undefined;
}

/** The current state of one adapter of a model. */
export interface ModelAdapter {
  readonly name: string;
  /** The layers that have it, by path. */
  readonly layers: ReadonlyMap<string, AnyLoRALayer>;
  /** Undefined if all its layers were constructed directly. */
  readonly note: AdapterNote | undefined;
  readonly modules: ReadonlyMap<string, Replacement>;
  readonly biases: ReadonlyMap<string, Replacement>;
}

const notesOf = new WeakMap<Module, Map<string, AdapterNote>>();
const NONE: ReadonlyMap<string, Replacement> = new Map();

/** Returns the notes of a model's adapters, by name. */
export function readNotes(model: Module): Map<string, AdapterNote> {
  let notes = notesOf.get(model);
  if (notes === undefined) notesOf.set(model, (notes = new Map()));
  return notes;
}

/**
 * Yields the base's modules by path, with originals instead of an adapter's copies: an original stays part of the model
 * while a copy replaces it. A module with several paths is yielded once.
 */
export function* listBaseModules(model: Module): IterableIterator<[path: string, module: Module]> {
  const originals = new Map<Module, Module>();
  for (const { modules } of readNotes(model).values()) {
    for (const { original, copy } of modules.values()) originals.set(copy as Module, original as Module);
  }
  const seen = new Set<Module>();
  function* below(path: string, module: Module): IterableIterator<[string, Module]> {
    if (seen.has(module)) return;
    seen.add(module);
    yield [path, module];
    for (const [name, child] of module.children())
      yield* below(join(path, name), originals.get(child) ?? child);
  }
  yield* below("", model);
}

/** Yields the low-rank layers of a model, by path. */
export function* listLoraLayers(model: Module): IterableIterator<[path: string, layer: AnyLoRALayer]> {
  for (const [path, module] of listBaseModules(model)) if (module instanceof LoRALayer) yield [path, module];
}

/** Returns the adapters of a model by name: first the adapters of directly constructed layers, then by order of `inject`. */
export function listAdapters(model: Module): Map<string, ModelAdapter> {
  const byName = new Map<string, Map<string, AnyLoRALayer>>();
  for (const [path, layer] of listLoraLayers(model)) {
    for (const name of layer.adapters.keys()) {
      const layers = byName.get(name);
      if (layers === undefined) byName.set(name, new Map([[path, layer]]));
      else layers.set(path, layer);
    }
  }
  const notes = readNotes(model);
  for (const [name, { modules, biases }] of notes) {
    if (byName.has(name)) continue;
    // The user has replaced all of its layers.
    if (modules.size + biases.size === 0) notes.delete(name);
    else byName.set(name, new Map());
  }
  const names = [...[...byName.keys()].filter((name) => !notes.has(name)), ...notes.keys()];
  return new Map(
    names.map((name) => {
      const note = notes.get(name);
      const layers = byName.get(name) as Map<string, AnyLoRALayer>;
      return [name, { name, layers, note, modules: note?.modules ?? NONE, biases: note?.biases ?? NONE }];
    }),
  );
}

/**
 * Returns the names of a model's adapters: those added by `inject` or `loadAdapter`, and "default" if a low-rank layer
 * was constructed directly.
 */
export function adapters(model: Module): string[] {
  checkModule("adapters", "model", model);
  return [...listAdapters(model).keys()];
}

/** Returns the adapter called `name`. Throws `ERR_UNKNOWN_ADAPTER`, listing the loaded adapters. */
export function findAdapter(model: Module, name: string, all = listAdapters(model)): ModelAdapter {
  const adapter = all.get(name);
  if (adapter === undefined) {
    const loaded = [...all.keys()].map((n) => `"${n}"`).join(", ");
    throw new LowrankError(
      "ERR_UNKNOWN_ADAPTER",
      `there is no adapter named "${name}"${didYouMean(name, all.keys())}; loaded: ${loaded || "none"}`,
    );
  }
  return adapter;
}

/** Throws `ERR_ADAPTER_EXISTS` if the name is taken. */
export function checkFree(model: Module, name: string, where: string): void {
  const existing = listAdapters(model).get(name);
  if (existing === undefined) return;
  const byHand = [...existing.layers]
    .filter(([, layer]) => layer.byHand)
    .map(([path]) => path || "the model");
  throw new LowrankError(
    "ERR_ADAPTER_EXISTS",
    existing.note === undefined && byHand.length > 0
      ? `${where}: the layers made by hand (${byHand.slice(0, 3).join(", ")}${byHand.length > 3 ? ", …" : ""}) are an adapter named "${name}" already; give the new one another name, write over them with hotSwap, or take them off with deleteAdapter first`
      : `${where}: an adapter named "${name}" already exists`,
  );
}

/** The parents of each module, with the property names. */
export type ModuleParents = ReadonlyMap<Module, readonly [owner: Module, property: string][]>;

/** Returns the parents of all modules. This walks the whole model, so do it once to replace many modules. */
export function findParents(model: Module): ModuleParents {
  const places = new Map<Module, [Module, string][]>();
  const owners = new Set([...model.namedModules(), ...listBaseModules(model)].map(([, owner]) => owner));
  for (const owner of owners) {
    for (const [name, child] of owner.children()) {
      const parents = places.get(child);
      if (parents === undefined) places.set(child, [[owner, name]]);
      else parents.push([owner, name]);
    }
  }
  return places;
}

/** Returns the parent of the module at `path`, the property name, and the module. */
export function findParent(model: Module, path: string): [owner: Module, property: string, module: Module] {
  for (const [prefix, module] of model.namedModules()) {
    if (prefix !== "" && !path.startsWith(`${prefix}.`)) continue;
    for (const [name, child] of module.children()) {
      if ((prefix === "" ? name : `${prefix}.${name}`) === path) return [module, name, child];
    }
  }
  throw new LowrankError("ERR_INTERNAL", `no module holds ${path}`);
}

/** Updates the notes after `to` replaced `from`: copies that stand for it, and copies of its bias. */
function retarget(model: Module, from: Module, to: Module): void {
  for (const { modules, biases } of readNotes(model).values()) {
    for (const replacement of modules.values()) if (replacement.original === from) replacement.original = to;
    for (const replacement of biases.values()) if (replacement.owner === from) replacement.owner = to;
  }
}

/** Replaces `from` by `to` everywhere in the model. */
export function replaceEverywhere(model: Module, from: Module, to: Module, places: ModuleParents): void {
  if (from === to) return;
  for (const [owner, property] of places.get(from) ?? []) owner.replaceChild(property, to);
  retarget(model, from, to);
}
