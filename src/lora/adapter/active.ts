/** Selects a model's active adapters, disables them, and removes them. */
import {
  checkCallable,
  checkFlag,
  isPlain,
  checkKnownOptions,
  refuse,
  formatValue,
  checkText,
} from "../../arguments/check.js";
import { LowrankError } from "../../errors.js";
import { checkModule } from "../../nn/children.js";
import { Module } from "../../nn/module.js";
import { Tensor } from "../../tensor/tensor.js";
import type { Active, AnyLoRALayer } from "../layers/any-layer.js";
import { change } from "./change.js";
import { runWithDisabled } from "../layers/disabled.js";
import { listParts } from "../layers/adapter.js";
import { readOrder, setOrder } from "./order.js";
import {
  findAdapter,
  listAdapters,
  listLoraLayers,
  readNotes,
  findParents,
  type ModuleParents,
  replaceEverywhere,
  type AdapterNote,
  type ModelAdapter,
} from "./registry.js";
import { release } from "../layers/release.js";
import { isWithin, listOwnTensors } from "./replacement.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { createRefusal } from "../../refusals/refusal.js";

/** Models inside `withoutAdapters`, with the number of nested calls. */
const running = new WeakMap<Module, number>();

/** Whether `model` is inside `withoutAdapters`. */
export function runsWithoutAdapters(model: Module): boolean {
  return running.has(model);
}

/** Returns the active adapters of all layers, by order of activation. */
export function listActive(model: Module): Active[] {
  const order = readOrder(model);
  const found = new Map<string, Active>();
  for (const [, layer] of listLoraLayers(model))
    for (const active of layer.active) if (!found.has(active.name)) found.set(active.name, active);
  for (const entry of order) {
    const note = readNotes(model).get(entry.name);
    // An adapter that consists only of trained copies is in no layer.
    if (note !== undefined && !found.has(entry.name) && !isHeld(model, entry.name))
      found.set(entry.name, entry);
  }
  const findPlace = (name: string): number => {
    const index = order.findIndex((entry) => entry.name === name);
    return index < 0 ? order.length : index;
  };
  return [...found.values()].sort((a, b) => findPlace(a.name) - findPlace(b.name));
}

function isHeld(model: Module, name: string): boolean {
  for (const [, layer] of listLoraLayers(model)) if (layer.adapters.has(name)) return true;
  return false;
}

/** Activates exactly `active`: their layers, and their copies of modules and biases. */
export function activate(model: Module, active: readonly Active[]): void {
  for (const [, layer] of listLoraLayers(model)) layer.setActive(active);
  setOrder(model, active);
  installCopies(model, active);
}

/** Activates one more adapter. */
export function activateAlso(model: Module, added: Active): void {
  const active = [...listActive(model), added];
  for (const [, layer] of listLoraLayers(model))
    if (layer.adapters.has(added.name)) layer.setActive([...layer.active, added]);
  setOrder(model, active);
  installCopies(model, active);
}

/** @internal Throws for adapters that cannot be active together because both replace the same module or bias. */
export function checkCombination(model: Module, active: readonly Active[], all = listAdapters(model)): void {
  const owners = new Map<string, string>();
  for (const { name } of active) {
    const { modules, biases } = findAdapter(model, name, all);
    for (const path of [...modules.keys(), ...[...biases.keys()].map((owner) => `${owner}.bias`)]) {
      const other = owners.get(path);
      if (other !== undefined)
        throw createRefusal(ADAPTER_REFUSALS.sameCopy, `"${other}" and "${name}"`, path);
      owners.set(path, name);
    }
  }
  for (const { name } of active) {
    for (const path of findAdapter(model, name, all).layers.keys()) {
      const copied = [...owners].find(([ownedPath, owner]) => owner !== name && isWithin(path, [ownedPath]));
      if (copied !== undefined)
        throw createRefusal(
          ADAPTER_REFUSALS.adaptedCopy,
          `"${name}" and "${copied[1]}"`,
          path === copied[0] ? path : `${path} in ${copied[0]}`,
        );
    }
  }
}

/** @internal Puts the base's modules and biases back, without changing the layers. */
export function restoreOriginals(model: Module): void {
  for (const note of readNotes(model).values()) swap(model, note, "original");
}

/** @internal Puts the copies of the active adapters into the model, unless it is inside `withoutAdapters`. */
export function installCopies(model: Module, active: readonly Active[] = listActive(model)): void {
  restoreOriginals(model);
  if (running.has(model)) return;
  for (const { name } of active) {
    const note = readNotes(model).get(name);
    if (note !== undefined) swap(model, note, "copy");
  }
}

/** Replaces originals by copies or the reverse. A module or bias assigned by the user is not replaced. */
function swap(model: Module, note: AdapterNote, which: "original" | "copy"): void {
  const notes = [...readNotes(model).values()];
  for (const [path, { owner, property, [which]: module }] of note.modules) {
    const known = notes.flatMap(({ modules }) => {
      const replacement = modules.get(path);
      return replacement === undefined ? [] : [replacement.original, replacement.copy];
    });
    const standing = [...owner.children()].find(([name]) => name === property)?.[1];
    if (standing !== module && standing !== undefined && known.includes(standing))
      owner.replaceChild(property, module as Module);
  }
  for (const [path, { owner, [which]: bias }] of note.biases) {
    const known = notes.flatMap(({ biases }) => {
      const replacement = biases.get(path);
      return replacement === undefined ? [] : [replacement.original, replacement.copy];
    });
    const holder = owner as unknown as { bias: Tensor };
    if (known.includes(holder.bias)) holder.bias = bias as Tensor;
  }
}

/**
 * Selects the active adapters of `model`: one, several (their sum), or several with weights. With `trainable` true the
 * selected adapters become trainable and all others do not; with false none is.
 *
 * Throws `ERR_UNKNOWN_ADAPTER`, `ERR_OPTION`; the model is then unchanged.
 */
export function setAdapter(
  model: Module,
  names: string | readonly string[] | Readonly<Record<string, number>>,
  given: { trainable?: boolean | undefined } = {},
): void {
  checkModule("setAdapter", "model", model);
  const { trainable } = checkKnownOptions("setAdapter", given, ["trainable"]);
  if (trainable !== undefined) checkFlag("setAdapter", "trainable", trainable);
  if (typeof names !== "string" && !Array.isArray(names) && !isPlain(names))
    refuse("setAdapter", "names", "a name, a list of names, or weights by name", names);
  const active: Active[] =
    typeof names === "string"
      ? [{ name: names, weight: 1 }]
      : Array.isArray(names)
        ? (names as string[]).map((name) => ({ name, weight: 1 }))
        : Object.entries(names as Record<string, number>).map(([name, weight]) => ({ name, weight }));
  const all = listAdapters(model);
  for (const [i, { name, weight }] of active.entries()) {
    checkText("setAdapter", "names", name);
    findAdapter(model, name, all);
    if (!Number.isFinite(weight))
      throw new LowrankError(
        "ERR_OPTION",
        `setAdapter: the weight of "${name}" must be a number, got ${formatValue(weight)}`,
      );
    if (active.findIndex((other) => other.name === name) !== i)
      throw new LowrankError("ERR_OPTION", `setAdapter: names "${name}" twice; give it a weight instead`);
  }
  checkCombination(model, active, all);
  change(model, () => {
    activate(model, active);
    if (trainable === undefined) return;
    for (const adapter of all.values())
      askForGradients(adapter, trainable && active.some(({ name }) => name === adapter.name));
  });
}

/** @internal Records the active adapters and their trainable tensors, and returns a function that restores them. */
export function snapshotActive(model: Module): () => void {
  const active = listActive(model);
  const flags = [...listAdapters(model).values()]
    .flatMap(listTensors)
    .map((tensor) => [tensor, tensor.requiresGrad] as const);
  return () =>
    change(model, () => {
      activate(model, active);
      for (const [tensor, on] of flags)
        if (!tensor.disposed && tensor.requiresGrad !== on) tensor.requiresGrad = on;
    });
}

/** @internal Sets whether the tensors of an adapter require gradients. */
export function setTrainable(model: Module, name: string, on: boolean): void {
  askForGradients(findAdapter(model, name), on);
}

function askForGradients(adapter: ModelAdapter, on: boolean): void {
  for (const tensor of listTensors(adapter)) if (tensor.requiresGrad !== on) tensor.requiresGrad = on;
}

/** Returns the tensors of an adapter that can be trained. */
function listTensors({ name, layers, modules, biases }: ModelAdapter): Tensor[] {
  const parts = [...layers.values()].flatMap((layer) =>
    listParts(layer.findAdapter(name)).map(([, tensor]) => tensor),
  );
  return [...parts, ...[...modules.values(), ...biases.values()].flatMap(({ copy }) => listOwnTensors(copy))];
}

/**
 * Runs `fn` with all adapters of the model disabled and returns its result. If that is a promise, the adapters are
 * enabled again once it settles. Changes that `fn` makes to the adapters take effect afterwards.
 */
export function withoutAdapters<T>(model: Module, fn: () => T): T {
  checkModule("withoutAdapters", "model", model);
  checkCallable("withoutAdapters", "fn", fn);
  const layers = [...listLoraLayers(model)].map(([, layer]) => layer);
  running.set(model, (running.get(model) ?? 0) + 1);
  const restore = (): void => {
    const left = (running.get(model) ?? 1) - 1;
    if (left > 0) running.set(model, left);
    else running.delete(model);
    installCopies(model);
  };
  let result: T;
  try {
    installCopies(model);
    result = runWithDisabled(layers, fn);
  } catch (error) {
    restore();
    throw error;
  }
  if (result instanceof Promise) return result.finally(restore) as T;
  restore();
  return result;
}

/**
 * Removes the adapter `name` from `model` and frees its tensors. A layer without other adapters becomes plain again:
 * the layer that `inject` replaced, or for a layer constructed directly a new one with the same weight and bias, and the
 * same `requiresGrad`. Throws `ERR_UNKNOWN_ADAPTER`.
 */
export function deleteAdapter(model: Module, name: string): void {
  checkModule("deleteAdapter", "model", model);
  checkText("deleteAdapter", "name", name);
  findAdapter(model, name);
  change(model, () => removeAdapters(model, [name]));
}

/**
 * Removes every adapter. `model`, which is returned, is the base again, bit for bit. Layers constructed directly become
 * plain ones, as in `deleteAdapter`.
 */
export function unload<T extends Module>(model: T): T {
  checkModule("unload", "model", model);
  change(model, () => removeAdapters(model, [...listAdapters(model).keys()]));
  return model;
}

function removeAdapters(model: Module, names: readonly string[]): void {
  const [notes, all] = [readNotes(model), listAdapters(model)];
  restoreOriginals(model);
  for (const name of names) {
    const { layers, modules, biases } = all.get(name) as ModelAdapter;
    for (const layer of layers.values()) layer.removeAdapter(name);
    for (const { copy } of [...modules.values(), ...biases.values()]) release(copy);
    notes.delete(name);
  }
  const emptied = new Set(names.flatMap((name) => [...(all.get(name) as ModelAdapter).layers.values()]));
  const places = findParents(model);
  for (const layer of emptied) if (layer.adapters.size === 0) removeLayer(model, layer, places);
  installCopies(model);
}

/** Replaces a layer without adapters by the plain layer. */
export function removeLayer(model: Module, layer: AnyLoRALayer, places: ModuleParents): void {
  // A model that is itself a low-rank layer cannot be replaced; it stays one of rank 0.
  if (layer === (model as Module)) layer.unmerge();
  else replaceEverywhere(model, layer, layer.toUnloaded(), places);
}
