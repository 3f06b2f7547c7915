/** Which adapters a model has, and what becomes of them. */
import { moduleOf } from "../../nn/children.js";
import type { Module } from "../../nn/module.js";
import type { Tensor } from "../../tensor.js";
import { activeOf } from "../adapter/active.js";
import { adapters, loraLayers } from "../adapter/registry.js";

/** Which adapters a model has, and which count. */
export interface Status {
  /** Names of all adapters. */
  adapters: string[];
  /** Those that count, in the order in which they do. */
  active: {
    /** What it is called. */
    name: string;
    /** What its difference is multiplied by, besides its scaling; 1 unless `setAdapter` was given another. */
    weight: number;
  }[];
  /** Adapters of which some tensor asks for a gradient. */
  trainable: string[];
  /** Whether all, none or `some` of the adapted layers are merged. */
  merged: boolean | "some";
  /** How many layers have an adapter. */
  layers: number;
  /** Elements that are trained. */
  trainableElements: number;
  /** All elements of the model, adapters included. */
  totalElements: number;
}

/** Which adapters a model has, which of them count, and which are trained. */
export function status(model: Module): Status {
  moduleOf("status", "model", model);
  const layers = [...loraLayers(model)].map(([, layer]) => layer).filter((layer) => layer.adapters.size > 0);
  const merged = layers.filter((layer) => layer.merged).length;
  const [names, tensors] = [adapters(model), new Set(Object.values(model.stateDict()))];
  const size = (all: Iterable<Tensor>): number => [...all].reduce((n, one) => n + one.size, 0);
  return {
    adapters: names,
    active: activeOf(model),
    trainable: names.filter((name) =>
      layers.some((layer) => {
        const adapter = layer.adapters.get(name);
        return adapter !== undefined && (adapter.loraA.requiresGrad || adapter.loraB.requiresGrad);
      }),
    ),
    merged: merged === 0 ? false : merged === layers.length ? true : "some",
    layers: layers.length,
    trainableElements: size([...tensors].filter((one) => one.requiresGrad)),
    totalElements: size(tensors),
  };
}
