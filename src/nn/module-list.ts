import { refuse, checkWhole } from "../arguments/check.js";
import { LowrankError } from "../errors.js";
import { checkInteger } from "../tensor/arguments.js";
import { checkModule, findIndex } from "./children.js";
import { Module } from "./module.js";

/**
 * A list of modules, which are its children, named by their indices. It does not define the order of computation. As
 * `torch.nn.ModuleList`.
 */
export class ModuleList<M extends Module = Module> extends Module implements Iterable<M> {
  /** The modules by index. */
  readonly items: M[];

  /** Creates it from `modules`. Throws `ERR_OPTION` for values that are not modules. */
  constructor(modules: Iterable<M> = []) {
    super();
    this.items = checkModules("ModuleList", modules);
  }

  /** The number of modules. */
  get length(): number {
    return this.items.length;
  }

  /** The module at `index`; a negative index counts from the end. Throws `ERR_INDEX`, `ERR_OPTION`. */
  at(index: number): M {
    const found = this.items.at(checkInteger("ModuleList.at", "index", index));
    if (found !== undefined) return found;
    throw new LowrankError("ERR_INDEX", `ModuleList: there is no module ${index} among ${this.length}`);
  }

  /** Appends modules. Throws `ERR_OPTION`; then nothing is added. */
  push(...modules: M[]): this {
    this.items.push(...checkModules("ModuleList.push", modules));
    return this;
  }

  /** Inserts `module` before `index`. Throws `ERR_OPTION`. */
  insert(index: number, module: M): this {
    const position = checkWhole("ModuleList.insert", "index", index);
    if (position > this.length) refuse("ModuleList.insert", "index", `at most ${this.length}`, index);
    this.items.splice(position, 0, checkModule("ModuleList.insert", "module", module) as M);
    return this;
  }

  /** Iterates over the modules by index. */
  [Symbol.iterator](): IterableIterator<M> {
    return this.items.values();
  }

  /** Its modules by name. */
  override *children(): IterableIterator<[string, Module]> {
    for (const [i, item] of this.items.entries()) yield [`${i}`, item];
  }

  /** Replaces the module called `name` by `module`. */
  override replaceChild(name: string, module: Module): void {
    const where = "ModuleList.replaceChild";
    this.items[findIndex(where, name, this.length)] = checkModule(where, "module", module) as M;
  }

  /** A list has no computation: throws `ERR_OPTION`. */
  forward(): never {
    throw new LowrankError(
      "ERR_OPTION",
      "ModuleList: cannot run as a module; call its modules' forward, or use a Sequential",
    );
  }
}

function checkModules<M extends Module>(where: string, modules: Iterable<M>): M[] {
  const given = modules as unknown;
  if (typeof given !== "object" || given === null || !(Symbol.iterator in given))
    return refuse(where, "modules", "an array of modules", given);
  return [...modules].map((module, i) => checkModule(where, `module ${i}`, module) as M);
}
