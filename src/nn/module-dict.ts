import { isPlain, refuse, shown, text } from "../argument.js";
import { LowrankError } from "../errors.js";
import { moduleOf } from "./children.js";
import { Module } from "./module.js";

/**
 * Modules by name, which are children of the module that holds it, in the order in which they came. As
 * `torch.nn.ModuleDict`.
 */
export class ModuleDict<M extends Module = Module> extends Module {
  // A list, not a map: a copy of a module copies its lists.
  /** @internal Names and modules in order. */
  readonly named: [name: string, module: M][] = [];

  /** Of `modules` by name, none unless given. Throws `ERR_OPTION` for what is no module, and for names that are empty or hold a dot. */
  constructor(modules: Readonly<Record<string, M>> = {}) {
    super();
    const given = modules as unknown;
    if (!isPlain(given)) refuse("ModuleDict", "modules", "an object of modules by name", given);
    for (const [name, module] of Object.entries(modules)) put(this.named, "ModuleDict", name, module);
  }

  /** How many there are. */
  get size(): number {
    return this.named.length;
  }

  /** Names in order. */
  keys(): string[] {
    return this.named.map(([name]) => name);
  }

  /** Modules in order. */
  values(): M[] {
    return this.named.map(([, module]) => module);
  }

  /** Names and modules in order. */
  entries(): [name: string, module: M][] {
    return this.named.map(([name, module]) => [name, module]);
  }

  /** Whether there is a module called `name`. Throws `ERR_OPTION` for what is no text. */
  has(name: string): boolean {
    text("ModuleDict.has", "name", name);
    return this.named.some(([one]) => one === name);
  }

  /** The module called `name`. Throws `ERR_OPTION`, listing those there are. */
  get(name: string): M {
    text("ModuleDict.get", "name", name);
    const found = this.named.find(([one]) => one === name);
    if (found !== undefined) return found[1];
    throw new LowrankError(
      "ERR_OPTION",
      `ModuleDict: there is no module ${shown(name)}; there are ${this.keys().join(", ") || "none"}`,
    );
  }

  /** Puts `module` under `name`, in the place of one that is there. Throws `ERR_OPTION`. */
  set(name: string, module: M): this {
    put(this.named, "ModuleDict.set", name, module);
    return this;
  }

  /** Takes the module called `name` out, without disposing of it; false where there is none. Throws `ERR_OPTION`. */
  delete(name: string): boolean {
    text("ModuleDict.delete", "name", name);
    const at = this.named.findIndex(([one]) => one === name);
    if (at >= 0) this.named.splice(at, 1);
    return at >= 0;
  }

  /** Its modules, by their names. */
  override *children(): IterableIterator<[string, Module]> {
    yield* this.entries();
  }

  /** Puts `module` in the place of the one called `name`. */
  override replaceChild(name: string, module: Module): void {
    put(this.named, "ModuleDict", name, module as M);
  }

  /** A dictionary does not say what it computes: throws `ERR_OPTION`. */
  forward(): never {
    throw new LowrankError("ERR_OPTION", "ModuleDict: has no forward of its own; call those of its modules");
  }
}

function put<M extends Module>(named: [string, M][], where: string, name: string, module: M): void {
  text(where, "name", name);
  if (name === "" || name.includes(".")) refuse(where, "name", "a name without dots", name);
  moduleOf(where, name, module);
  const at = named.findIndex(([one]) => one === name);
  if (at >= 0) named[at] = [name, module];
  else named.push([name, module]);
}
