import type { Tensor } from "../tensor.js";
import { Module } from "./module.js";

/** Modules one after the other; their names are their places, as PyTorch's. */
export class Sequential extends Module {
  readonly layers: Module[];

  constructor(...layers: Module[]) {
    super();
    this.layers = layers;
  }

  override *children(): IterableIterator<[string, Module]> {
    for (const [i, layer] of this.layers.entries()) yield [`${i}`, layer];
  }

  override replaceChild(name: string, module: Module): void {
    this.layers[Number(name)] = module;
  }

  forward(x: Tensor): Tensor {
    return this.layers.reduce((y, layer) => (layer.forward as (x: Tensor) => Tensor).call(layer, y), x);
  }
}
