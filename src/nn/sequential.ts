import { checkCallable } from "../arguments/check.js";
import type { Tensor } from "../tensor/tensor.js";
import { checkModule, findIndex } from "./children.js";
import { Module } from "./module.js";

/** A chain of modules, named by their indices as in PyTorch. */
export class Sequential extends Module {
  /** The modules, from first to last. */
  readonly layers: Module[];

  /** Creates it from `layers`, in the order in which they run. Throws `ERR_OPTION` if it is not a module. */
  constructor(...layers: Module[]) {
    super();
    this.layers = layers.map((layer, i) => checkModule("Sequential", `layer ${i}`, layer));
  }

  /** Its modules by name. */
  override *children(): IterableIterator<[string, Module]> {
    for (const [i, layer] of this.layers.entries()) yield [`${i}`, layer];
  }

  /** Replaces the module called `name` by `module`. */
  override replaceChild(name: string, module: Module): void {
    const where = "Sequential.replaceChild";
    this.layers[findIndex(where, name, this.layers.length)] = checkModule(where, "module", module);
  }

  /** The output of the last module; each gets the output of the one before. Throws their errors. */
  forward(x: Tensor): Tensor {
    return this.layers.reduce((y, layer, i) => {
      const forward = checkCallable(
        "Sequential",
        `forward of layer ${i}`,
        layer.forward as (x: Tensor) => Tensor,
      );
      return forward.call(layer, y);
    }, x);
  }
}
