import { isPlain, refuse, formatValue, checkText } from "../arguments/check.js";
import { LowrankError } from "../errors.js";
import { checkModule } from "./children.js";
import { Module } from "./module.js";

/** A dictionary of modules, which are its children in the order of insertion. As `torch.nn.ModuleDict`. */
export class ModuleDict<M extends Module = Module> extends Module {
  // A list instead of a map, since a copy of a module copies its lists.
  /** @internal Names and modules by insertion. */
  readonly named: [name: string, module: M][] = [];

  /**
   * Creates it from `modules` by name. Throws `ERR_OPTION` for values that are not modules, and for names that are
   * empty or contain a dot.
   */
  constructor(modules: Readonly<Record<string, M>> = {}) {
    super();
    const given = modules as unknown;
    if (!isPlain(given)) refuse("ModuleDict", "modules", "an object of modules by name", given);
    for (const [name, module] of Object.entries(modules)) put(this.named, "ModuleDict", name, module);
  }

  /** The number of modules. */
  get size(): number {
    return this.named.length;
  }

  /** Returns the names, by insertion. */
  keys(): string[] {
    return this.named.map(([name]) => name);
  }

  /** Returns the modules, by insertion. */
  values(): M[] {
    return this.named.map(([, module]) => module);
  }

  /** Returns names and modules, by insertion. */
  entries(): [name: string, module: M][] {
    return this.named.map(([name, module]) => [name, module]);
  }

  /** Whether there is a module called `name`. Throws `ERR_OPTION` if `name` is not a string. */
  has(name: string): boolean {
    checkText("ModuleDict.has", "name", name);
    return this.named.some(([key]) => key === name);
  }

  /** The module called `name`. Throws `ERR_OPTION` with the existing names. */
  get(name: string): M {
    checkText("ModuleDict.get", "name", name);
    const found = this.named.find(([key]) => key === name);
    if (found !== undefined) return found[1];
    throw new LowrankError(
      "ERR_OPTION",
      `ModuleDict: there is no module ${formatValue(name)}; there are ${this.keys().join(", ") || "none"}`,
    );
  }

  /** Sets the module called `name`; replaces an existing one. Throws `ERR_OPTION`. */
  set(name: string, module: M): this {
    put(this.named, "ModuleDict.set", name, module);
    return this;
  }

  /** Removes the module called `name`, without disposing it; false if there is none. Throws `ERR_OPTION`. */
  delete(name: string): boolean {
    checkText("ModuleDict.delete", "name", name);
    const index = this.named.findIndex(([key]) => key === name);
    if (index >= 0) this.named.splice(index, 1);
    return index >= 0;
  }

  /** Its modules by name. */
  override *children(): IterableIterator<[string, Module]> {
    yield* this.entries();
  }

  /** Replaces the module called `name` by `module`. */
  override replaceChild(name: string, module: Module): void {
    put(this.named, "ModuleDict", name, module as M);
  }

  /** A dictionary has no computation: throws `ERR_OPTION`. */
  forward(): never {
    throw new LowrankError("ERR_OPTION", "ModuleDict: cannot run as a module; call its modules' forward");
  }
}

function put<M extends Module>(named: [string, M][], where: string, name: string, module: M): void {
  checkText(where, "name", name);
  if (name === "" || name.includes(".")) refuse(where, "name", "a name without dots", name);
  checkModule(where, name, module);
  const index = named.findIndex(([key]) => key === name);
  if (index >= 0) named[index] = [name, module];
  else named.push([name, module]);
}
