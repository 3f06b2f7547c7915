/** Buffers: tensors that a module saves and moves, but does not train. */
import { refuse } from "../arguments/check.js";
import { keep } from "../tensor/scope.js";
import { isTensor, type Tensor } from "../tensor/tensor.js";

/** A buffer of a module. */
interface Slot {
  tensor: Tensor | null;
  persistent: boolean;
}

/** By module and name; stored outside of the modules, so that a property stays a buffer when it is reassigned. */
const registered = new WeakMap<object, Map<string, Slot>>();

/** The names of `module`'s buffers in the order of registration; with `persistent`, those in a state dict only. */
export function listBufferNames(module: object, { persistent = false } = {}): string[] {
  const slots = [...(registered.get(module) ?? [])];
  return slots.filter(([, slot]) => slot.persistent || !persistent).map(([name]) => name);
}

/** Whether the buffer `name` is part of a state dict. */
export function isPersistent(module: object, name: string): boolean {
  return registered.get(module)?.get(name)?.persistent ?? false;
}

/** Makes `name` a buffer of `module`: a tensor assigned to it later is a buffer, too, and outlives scopes. */
export function defineBuffer(module: object, name: string, tensor: Tensor | null, persistent: boolean): void {
  const where = `${module.constructor.name}.registerBuffer`;
  const slot: Slot = { tensor: null, persistent };
  const set = (value: unknown): void => {
    if (value !== null && !isTensor(value)) refuse(where, name, "a tensor or null", value);
    if (value !== null) keep(value);
    slot.tensor = value;
  };
  set(tensor);
  let slots = registered.get(module);
  if (slots === undefined) registered.set(module, (slots = new Map<string, Slot>()));
  slots.set(name, slot);
  Object.defineProperty(module, name, {
    get: () => slot.tensor,
    set,
    enumerable: true,
    configurable: true,
  });
}
