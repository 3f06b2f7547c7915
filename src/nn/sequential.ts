import { callable } from "../argument.js";
import type { Tensor } from "../tensor.js";
import { moduleOf, placeOf } from "./children.js";
import { Module } from "./module.js";

/** Modules one after the other; their names are their places, as PyTorch's. */
export class Sequential extends Module {
  /** The modules, in order. */
  readonly layers: Module[];

  /** Of `layers`, in the order in which they run. Throws `ERR_OPTION` for what is no module. */
  constructor(...layers: Module[]) {
    super();
    this.layers = layers.map((layer, i) => moduleOf("Sequential", `layer ${i}`, layer));
  }

  /** Its modules, by their names. */
  override *children(): IterableIterator<[string, Module]> {
    for (const [i, layer] of this.layers.entries()) yield [`${i}`, layer];
  }

  /** Puts `module` in the place of the one called `name`. */
  override replaceChild(name: string, module: Module): void {
    const where = "Sequential.replaceChild";
    this.layers[placeOf(where, name, this.layers.length)] = moduleOf(where, "module", module);
  }

  /** What the last gives, each being given what the one before gave. Throws what they throw. */
  forward(x: Tensor): Tensor {
    return this.layers.reduce((y, layer, i) => {
      const forward = callable("Sequential", `forward of layer ${i}`, layer.forward as (x: Tensor) => Tensor);
      return forward.call(layer, y);
    }, x);
  }
}
