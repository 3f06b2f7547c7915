/** Summarises the adapters of a model. */
import { checkModule } from "../../nn/children.js";
import type { Module } from "../../nn/module.js";
import type { Tensor } from "../../tensor/tensor.js";
import { listActive } from "../adapter/active.js";
import { adapters, listLoraLayers } from "../adapter/registry.js";

/** The adapters of a model and their state. */
export interface Status {
  /** Names of all adapters. */
  adapters: string[];
  /** Active adapters, by order of activation. */
  active: {
    /** The name of the adapter. */
    name: string;
    /** Its weight in the sum, which multiplies its scaling: 1, or the weight given to `setAdapter`. */
    weight: number;
  }[];
  /** Adapters with a tensor that requires a gradient. */
  trainable: string[];
  /** Whether all, none or `some` of the adapted layers are merged. */
  merged: boolean | "some";
  /** The number of layers with an adapter. */
  layers: number;
  /** The number of trained elements. */
  trainableElements: number;
  /** The number of elements of the model, adapters included. */
  totalElements: number;
}

/** Returns the adapters of a model, and which are active, trained and merged. */
export function status(model: Module): Status {
  checkModule("status", "model", model);
  const layers = [...listLoraLayers(model)]
    .map(([, layer]) => layer)
    .filter((layer) => layer.adapters.size > 0);
  const merged = layers.filter((layer) => layer.merged).length;
  const [names, tensors] = [adapters(model), new Set(Object.values(model.stateDict()))];
  const sumSizes = (all: Iterable<Tensor>): number => [...all].reduce((n, tensor) => n + tensor.size, 0);
  return {
    adapters: names,
    active: listActive(model),
    trainable: names.filter((name) =>
      layers.some((layer) => {
        const adapter = layer.adapters.get(name);
        return adapter !== undefined && (adapter.loraA.requiresGrad || adapter.loraB.requiresGrad);
      }),
    ),
    merged: merged === 0 ? false : merged === layers.length ? true : "some",
    layers: layers.length,
    trainableElements: sumSizes([...tensors].filter((tensor) => tensor.requiresGrad)),
    totalElements: sumSizes(tensors),
  };
}
