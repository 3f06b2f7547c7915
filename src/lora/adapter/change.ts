/**
 * Atomic changes of a model's adapters. Before the first step, all state that a step may change is recorded: the
 * positions of modules and tensors, the adapters of each layer, which are active and merged, and `requiresGrad` of each
 * tensor. If a step fails, this state is restored. Tensors that a step removes are freed only after the last step, since
 * restoring needs them.
 */
import { Module } from "../../nn/module.js";
import { isTensor, type Tensor } from "../../tensor/tensor.js";
import { listTensors, type Adapter } from "../layers/adapter.js";
import type { AnyLoRALayer } from "../layers/any-layer.js";
import { LoRALayer } from "../layers/layer.js";
import { snapshotClass } from "../layers/own-class.js";
import { listBaseModules, readNotes, type AdapterNote } from "./registry.js";
import { postpone } from "../layers/release.js";
import { readOrder, setOrder } from "./order.js";
import { isTokenLayer, listTokenState } from "../layers/token-rows.js";

/** Runs the synchronous `step`. If it throws, `model` is restored. A nested change is part of the outer one. */
export function change<T>(model: Module, step: () => T): T {
  return postpone(
    () => snapshotModel(model),
    step,
    (restore) => restore(),
  );
}

/** Records the model's state and returns a function that restores it. */
function snapshotModel(model: Module): () => void {
  const modules = listModules(model);
  const restoring = [...modules].map(snapshotModule);
  const notes = new Map([...readNotes(model)].map(([name, note]) => [name, copyNote(note)]));
  const order = readOrder(model);
  const tensors = listTensorsIn(model);
  const flags = new Map(
    [...tensors].filter((tensor) => !tensor.disposed).map((tensor) => [tensor, tensor.requiresGrad]),
  );
  return () => {
    const created = [...listTensorsIn(model)].filter((tensor) => !tensors.has(tensor));
    for (const restore of restoring) restore();
    const current = readNotes(model);
    current.clear();
    for (const [name, note] of notes) current.set(name, note);
    setOrder(model, order);
    for (const [tensor, on] of flags)
      if (!tensor.disposed && tensor.requiresGrad !== on) tensor.requiresGrad = on;
    for (const tensor of created) tensor.dispose();
  };
}

/** Returns all modules in the model, the originals that copies replace, and the copies that are not in the model. */
function listModules(model: Module): Set<Module> {
  const all = new Set([...model.namedModules(), ...listBaseModules(model)].map(([, module]) => module));
  for (const { modules } of readNotes(model).values()) {
    for (const { copy } of modules.values())
      for (const [, module] of (copy as Module).namedModules()) all.add(module);
  }
  return all;
}

/** Records one module's children, tensors and mode, and returns a function that restores them. */
function snapshotModule(module: Module): () => void {
  const fields = module as unknown as Record<string, unknown>;
  const children = [...module.children()];
  const tensors = Object.entries(fields).filter(([, value]) => isTensor(value) || value === null);
  const { training } = module;
  const restoreClass = snapshotClass(module);
  const layer = module instanceof LoRALayer ? snapshotLayer(module) : undefined;
  return () => {
    restoreClass();
    const current = new Map(module.children());
    for (const [name, child] of children) if (current.get(name) !== child) module.replaceChild(name, child);
    for (const [name, value] of tensors) fields[name] = value;
    module.training = training;
    layer?.();
  };
}

function snapshotLayer(layer: AnyLoRALayer): () => void {
  const { active, unmergedWeight, replaced, byHand, squaredNorms } = layer;
  const layerAdapters = layer.adapters as Map<string, Adapter>;
  const adapters = [...layerAdapters].map(([name, adapter]) => [name, adapter, { ...adapter }] as const);
  return () => {
    layerAdapters.clear();
    for (const [name, adapter, fields] of adapters) {
      for (const key of Object.keys(adapter)) if (!(key in fields)) delete adapter[key as "magnitude"];
      layerAdapters.set(name, Object.assign(adapter, fields));
    }
    Object.assign(layer, { active, unmergedWeight, replaced, byHand, squaredNorms });
  };
}

function copyNote(note: AdapterNote): AdapterNote {
  const copyReplacements = (all: AdapterNote["modules"]): AdapterNote["modules"] =>
    new Map([...all].map(([path, replacement]) => [path, { ...replacement }]));
  return {
    ...note,
    options: { ...note.options },
    modules: copyReplacements(note.modules),
    biases: copyReplacements(note.biases),
  };
}

/** Returns every tensor of the model and its adapters, including the base tensors of merged layers. */
export function listTensorsIn(model: Module): Set<Tensor> {
  const all = new Set<Tensor>();
  for (const module of listModules(model)) {
    for (const value of Object.values(module)) if (isTensor(value)) all.add(value);
    if (isTokenLayer(module)) for (const tensor of Object.values(listTokenState(module))) all.add(tensor);
    if (!(module instanceof LoRALayer)) continue;
    for (const adapter of module.adapters.values())
      for (const tensor of listTensors(adapter)) all.add(tensor);
    const { unmergedWeight, squaredNorms } = module;
    for (const tensor of [unmergedWeight?.tensor, unmergedWeight?.bias, squaredNorms?.squares])
      if (tensor) all.add(tensor);
  }
  for (const { biases } of readNotes(model).values())
    for (const { original, copy } of biases.values()) all.add(original as Tensor).add(copy as Tensor);
  return all;
}
