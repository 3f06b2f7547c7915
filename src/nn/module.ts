/** The base of all layers: what it holds is found by looking, so assigning is registering. */
import type { Device } from "../device.js";
import { LowrankError } from "../errors.js";
import { keep } from "../scope.js";
import { isParameter, parameter, Tensor } from "../tensor.js";

/** The outcome of `loadStateDict`. */
export interface LoadReport {
  missing: string[];
  unexpected: string[];
}

/**
 * A layer or a model. Properties that hold modules, arrays of modules, or tensors that ask (or
 * once asked) for a gradient are its children and parameters, in the order of assignment.
 */
export abstract class Module {
  training = true;

  abstract forward(...inputs: never[]): unknown;

  /** Modules held directly, by property name; arrays count as `name.0`, `name.1`, … */
  *children(): IterableIterator<[name: string, module: Module]> {
    for (const [name, value] of Object.entries(this)) {
      if (value instanceof Module) yield [name, value];
      else if (Array.isArray(value)) {
        for (const [i, item] of value.entries()) if (item instanceof Module) yield [`${name}.${i}`, item];
      }
    }
  }

  /** Puts `module` in the place of the child called `name`. */
  replaceChild(name: string, module: Module): void {
    const [property, index] = name.split(".") as [string, string | undefined];
    const held = (this as Record<string, unknown>)[property];
    if (index !== undefined && Array.isArray(held)) held[Number(index)] = module;
    else (this as Record<string, unknown>)[name] = module;
  }

  /** Parameters held directly, under PyTorch's names. */
  *ownParameters(): IterableIterator<[name: string, tensor: Tensor]> {
    for (const [name, value] of Object.entries(this)) {
      if (value instanceof Tensor && isParameter(value)) {
        keep(value);
        yield [name, value];
      }
    }
  }

  /** What a state dict holds of this module itself. */
  ownState(): Iterable<[name: string, tensor: Tensor]> {
    return this.ownParameters();
  }

  /** This module and all below it, by path; the root's is "". A module met twice is given once. */
  *namedModules(prefix = "", seen = new Set<Module>()): IterableIterator<[path: string, module: Module]> {
    if (seen.has(this)) return;
    seen.add(this);
    yield [prefix, this];
    for (const [name, child] of this.children()) yield* child.namedModules(join(prefix, name), seen);
  }

  /** All parameters by path; one that is shared (tied) is given once. */
  *namedParameters(): IterableIterator<[path: string, parameter: Tensor]> {
    const seen = new Set<Tensor>();
    for (const [path, module] of this.namedModules()) {
      for (const [name, tensor] of module.ownParameters()) {
        if (!seen.has(tensor)) yield [join(path, name), tensor];
        seen.add(tensor);
      }
    }
  }

  *parameters(): IterableIterator<Tensor> {
    for (const [, tensor] of this.namedParameters()) yield tensor;
  }

  /** Sets the mode of this and all below: dropout is on in training. */
  train(mode = true): this {
    this.training = mode;
    for (const [, child] of this.children()) child.train(mode);
    return this;
  }

  eval(): this {
    return this.train(false);
  }

  /** Moves what the module holds; handles of parameters are replaced by moved ones. */
  to(device: Device): this {
    for (const [name, value] of Object.entries(this)) {
      if (!(value instanceof Tensor)) continue;
      const moved = value.to(device);
      if (moved === value) continue;
      (this as Record<string, unknown>)[name] = adopted(value, moved);
    }
    for (const [, child] of this.children()) child.to(device);
    return this;
  }

  /** The values to save, by path. Tied tensors stand under every name. */
  stateDict(): Record<string, Tensor> {
    const state: Record<string, Tensor> = {};
    for (const [path, module] of this.namedModules()) {
      for (const [name, tensor] of module.ownState()) state[join(path, name)] = tensor;
    }
    return state;
  }

  /**
   * Copies values in, by path. With `strict` a missing or an unexpected name is
   * `ERR_UNMATCHED_KEY`; a wrong shape is `ERR_SHAPE_MISMATCH` always. Nothing is written unless
   * everything fits.
   */
  loadStateDict(state: Record<string, Tensor>, { strict = true } = {}): LoadReport {
    const own = this.stateDict();
    const missing = Object.keys(own).filter((name) => !(name in state));
    const unexpected = Object.keys(state).filter((name) => !(name in own));
    if (strict && missing.length + unexpected.length > 0) {
      const parts = [
        missing.length > 0 ? `missing: ${missing.join(", ")}` : "",
        unexpected.length > 0 ? `unexpected: ${unexpected.join(", ")}` : "",
      ];
      throw new LowrankError("ERR_UNMATCHED_KEY", `loadStateDict: ${parts.filter(Boolean).join("; ")}`);
    }
    const pairs = Object.entries(own).filter(([name]) => name in state);
    for (const [name, tensor] of pairs) {
      const given = state[name] as Tensor;
      if (given.shape.join() !== tensor.shape.join()) {
        throw new LowrankError(
          "ERR_SHAPE_MISMATCH",
          `loadStateDict: ${name} is [${given.shape.join(", ")}], the module's is [${tensor.shape.join(", ")}]`,
        );
      }
    }
    this.beforeLoad();
    const now = this.stateDict();
    for (const [name] of pairs) {
      const [to, from] = [now[name] as Tensor, state[name] as Tensor];
      to.copy(from.dtype === to.dtype ? from : from.to(to.dtype));
    }
    return { missing, unexpected };
  }

  /** Called on every module before values are copied in. */
  protected beforeLoad(): void {
    for (const [, child] of this.children()) child.beforeLoad();
  }

  /** Frees every tensor that it and all below it hold. */
  dispose(): void {
    for (const value of Object.values(this)) if (value instanceof Tensor) value.dispose();
    for (const [, child] of this.children()) child.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** `moved` in the place of `old`: a parameter stays one. */
export function adopted(old: Tensor, moved: Tensor): Tensor {
  keep(moved);
  if (isParameter(old)) parameter(moved, old.requiresGrad);
  old.dispose();
  return moved;
}

export function join(prefix: string, name: string): string {
  return prefix === "" ? name : `${prefix}.${name}`;
}
