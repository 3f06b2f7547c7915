/** The base class of layers. Its properties are inspected, so assigning a module or parameter registers it. */
import { checkFlag, isPlain, checkKnownOptions, refuse, checkText } from "../arguments/check.js";
import type { Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import { keep } from "../tensor/scope.js";
import { isParameter, isTensor, makeParameter, type Tensor } from "../tensor/tensor.js";
import { listBufferNames, defineBuffer } from "./buffers.js";

/** The replacements of moved tensors, so that modules that share a tensor still share it. */
const moves = new WeakMap<Tensor, Tensor>();

/** The outcome of `loadStateDict`. */
export interface LoadReport {
  /** Names that the module has, but the dictionary does not. */
  missing: string[];
  /** Names that the dictionary has, but the module does not. */
  unexpected: string[];
}

/** Whether `value` is a module, and not a module's prototype, which `instanceof` accepts. */
export function isModule(value: unknown): value is Module {
  return value instanceof Module && Object.hasOwn(value, "training");
}

/** A selection of parameters. */
export interface ParameterFilter {
  /** Only parameters that require a gradient (true), or that do not (false); all by default. */
  trainable?: boolean | undefined;
}

/**
 * A layer or a model. Properties that hold modules, arrays of modules, or tensors that require (or once required) a gradient
 * are its children and parameters, in the order of assignment; buffers are registered by name. As `torch.nn.Module`.
 *
 * @example
 * class Net extends nn.Module {
 *   hidden = new nn.Linear(4, 8);
 *   head = new nn.Linear(8, 1);
 *   forward(x: Tensor): Tensor {
 *     return this.head.forward(this.hidden.forward(x).relu());
 *   }
 * }
 */
export abstract class Module {
  /** Whether the module is in training mode; set by `train()` and `eval()`. */
  training = true;

  /** The module's computation. */
  abstract forward(...inputs: never[]): unknown;

  /** The modules that are held directly, by property name; arrays count as `name.0`, `name.1`, … */
  *children(): IterableIterator<[name: string, module: Module]> {
    // Most properties are not modules, and whole models are traversed often.
    for (const name of Object.keys(this)) {
      const value = (this as Record<string, unknown>)[name];
      if (typeof value !== "object" || value === null) continue;
      if (isModule(value)) yield [name, value];
      else if (Array.isArray(value)) {
        for (const [i, item] of value.entries()) if (isModule(item)) yield [`${name}.${i}`, item];
      }
    }
  }

  /** Replaces the child that `children` calls `name` by `module`. Throws `ERR_OPTION`. */
  replaceChild(name: string, module: Module): void {
    const where = `${this.constructor.name}.replaceChild`;
    checkText(where, "name", name);
    if (!isModule(module)) refuse(where, "module", "a module", module);
    const [property, index] = name.split(".") as [string, string | undefined];
    const value = (this as Record<string, unknown>)[property];
    if (index !== undefined && Array.isArray(value)) value[Number(index)] = module;
    else (this as Record<string, unknown>)[name] = module;
  }

  /** The parameters that are held directly, by PyTorch's names. */
  *ownParameters(): IterableIterator<[name: string, tensor: Tensor]> {
    for (const [name, value] of Object.entries(this)) {
      if (!isTensor(value) || !isParameter(value) || listBufferNames(this).includes(name)) continue;
      keep(value);
      yield [name, value];
    }
  }

  /** The buffers that are held directly, without null ones. */
  *ownBuffers(): IterableIterator<[name: string, tensor: Tensor]> {
    yield* listBuffers(this, listBufferNames(this));
  }

  /** This module's own part of a state dict: parameters, then persistent buffers. */
  *ownState(): IterableIterator<[name: string, tensor: Tensor]> {
    yield* this.ownParameters();
    yield* listBuffers(this, listBufferNames(this, { persistent: true }));
  }

  /**
   * Makes `name` a property that holds a buffer: a tensor that is saved, loaded and moved with the module, but not trained, such
   * as running statistics. As `torch.nn.Module.register_buffer`. A tensor assigned to it later replaces it and outlives scopes;
   * null means no buffer for now. A buffer that is not `persistent` is moved, but not saved.
   *
   * Throws `ERR_OPTION` for a name that exists or contains a dot, for a value that is not a tensor, and for a parameter.
   */
  registerBuffer(
    name: string,
    tensor: Tensor | null,
    given: { persistent?: boolean | undefined } = {},
  ): void {
    const where = `${this.constructor.name}.registerBuffer`;
    checkText(where, "name", name);
    const { persistent = true } = checkKnownOptions(where, given, ["persistent"]);
    checkFlag(where, "persistent", persistent);
    if (name === "" || name.includes(".")) refuse(where, "name", "a name without dots", name);
    const value = (this as unknown as Record<string, unknown>)[name];
    const isTaken =
      name in this && value !== undefined && value !== null && !listBufferNames(this).includes(name);
    if (isTaken) refuse(where, "name", "the name of a new property", name);
    if (isTensor(tensor) && isParameter(tensor))
      refuse(where, name, "a tensor that is not a parameter; detach() makes one", tensor);
    defineBuffer(this, name, tensor, persistent);
  }

  /** This module and all below it, by path; the root's is "". A module that occurs twice is yielded once. */
  *namedModules(prefix = "", seen = new Set<Module>()): IterableIterator<[path: string, module: Module]> {
    if (seen.has(this)) return;
    seen.add(this);
    yield [prefix, this];
    for (const [name, child] of this.children()) yield* child.namedModules(join(prefix, name), seen);
  }

  /**
   * All parameters by path; a shared (tied) parameter is yielded once. With `{ trainable: true }` those that require a gradient,
   * with `{ trainable: false }` the frozen ones. Throws `ERR_OPTION`.
   */
  namedParameters(filter?: ParameterFilter): IterableIterator<[path: string, parameter: Tensor]> {
    const { trainable } = checkKnownOptions("namedParameters", filter, ["trainable"]);
    if (trainable !== undefined) checkFlag("namedParameters", "trainable", trainable);
    return listParameters(this, trainable);
  }

  /** All parameters, or those that `filter` selects, in the order of `namedParameters`. Throws `ERR_OPTION`. */
  parameters(filter?: ParameterFilter): IterableIterator<Tensor> {
    const named = this.namedParameters(filter);
    return (function* () {
      for (const [, tensor] of named) yield tensor;
    })();
  }

  /** All buffers by path, including those that are not saved; a shared one is yielded once. */
  *namedBuffers(): IterableIterator<[path: string, buffer: Tensor]> {
    const seen = new Set<Tensor>();
    for (const [path, module] of this.namedModules()) {
      for (const [name, tensor] of module.ownBuffers()) {
        if (!seen.has(tensor)) yield [join(path, name), tensor];
        seen.add(tensor);
      }
    }
  }

  /** All buffers, in the order of `namedBuffers`. */
  *buffers(): IterableIterator<Tensor> {
    for (const [, tensor] of this.namedBuffers()) yield tensor;
  }

  /**
   * Sets the mode of this module and all below it: in training mode, dropout is active and batch norms use the batch's
   * statistics. Throws `ERR_OPTION`.
   */
  train(mode = true): this {
    this.training = checkFlag(`${this.constructor.name}.train`, "mode", mode);
    for (const [, child] of this.children()) child.train(mode);
    return this;
  }

  /** Sets evaluation mode; the same as `train(false)`. */
  eval(): this {
    return this.train(false);
  }

  /**
   * Moves this module and all below it to `device`. Parameters and buffers are replaced by moved tensors, so create an optimizer
   * afterwards. Throws `ERR_OPTION`, `ERR_NO_GPU`.
   */
  to(device: Device): this {
    for (const [name, value] of Object.entries(this)) {
      if (!isTensor(value)) continue;
      const shared = value.disposed ? moves.get(value) : undefined;
      const moved = shared ?? value.to(device);
      if (moved === value) continue;
      (this as Record<string, unknown>)[name] = shared ?? adoptReplacement(value, moved);
    }
    for (const [, child] of this.children()) child.to(device);
    return this;
  }

  /** The parameters and persistent buffers by path, without copies. Tied tensors appear under every name. */
  stateDict(): Record<string, Tensor> {
    const state: Record<string, Tensor> = {};
    for (const [path, module] of this.namedModules()) {
      for (const [name, tensor] of module.ownState()) state[join(path, name)] = tensor;
    }
    return state;
  }

  /**
   * Copies values in, by path. With `strict`, the default, a missing or an unexpected name is `ERR_UNMATCHED_KEY`; a wrong shape is
   * always `ERR_SHAPE_MISMATCH`, and a value that is not a tensor `ERR_OPTION`. Nothing is written unless everything fits.
   */
  loadStateDict(state: Record<string, Tensor>, given: { strict?: boolean | undefined } = {}): LoadReport {
    const where = "loadStateDict";
    if (!isPlain(state)) refuse(where, "state", "a dictionary of tensors", state);
    const { strict = true } = checkKnownOptions(where, given, ["strict"]);
    checkFlag(where, "strict", strict);
    for (const [name, value] of Object.entries(state))
      if (!isTensor(value)) refuse(where, name, "a tensor", value);
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
    const current = this.stateDict();
    for (const [name] of pairs) {
      const [to, from] = [current[name] as Tensor, state[name] as Tensor];
      to.copy(from.dtype === to.dtype ? from : from.to(to.dtype));
    }
    return { missing, unexpected };
  }

  /** Called on every module before values are copied in. */
  protected beforeLoad(): void {
    for (const [, child] of this.children()) child.beforeLoad();
  }

  /** Frees every tensor of this module and all below it; the module must not be used afterwards. */
  dispose(): void {
    for (const value of Object.values(this)) if (isTensor(value)) value.dispose();
    for (const [, child] of this.children()) child.dispose();
  }

  /** `dispose()`, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

// Functions instead of private methods: a copy of a module (lora/inject/modules-to-save.ts) would not have those.

function* listBuffers(
  module: Module,
  names: readonly string[],
): IterableIterator<[name: string, tensor: Tensor]> {
  for (const name of names) {
    const value = (module as unknown as Record<string, Tensor | null>)[name];
    if (isTensor(value)) yield [name, value];
  }
}

function* listParameters(
  root: Module,
  trainable: boolean | undefined,
): IterableIterator<[path: string, parameter: Tensor]> {
  const seen = new Set<Tensor>();
  for (const [path, module] of root.namedModules()) {
    for (const [name, tensor] of module.ownParameters()) {
      if (seen.has(tensor)) continue;
      seen.add(tensor);
      if (trainable === undefined || tensor.requiresGrad === trainable) yield [join(path, name), tensor];
    }
  }
}

/** `moved` as the replacement of `old`: a parameter stays a parameter. */
export function adoptReplacement(old: Tensor, moved: Tensor): Tensor {
  keep(moved);
  if (isParameter(old)) makeParameter(moved, old.requiresGrad);
  moves.set(old, moved);
  old.dispose();
  return moved;
}

export function join(prefix: string, name: string): string {
  return prefix === "" ? name : `${prefix}.${name}`;
}
