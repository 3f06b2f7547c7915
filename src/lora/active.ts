/** Which of a model's adapters count, and taking them off again. */
import { LowrankError } from "../errors.js";
import { Module } from "../nn/module.js";
import { Tensor } from "../tensor.js";
import { without } from "./disabled.js";
import { partsOf, type Active, type AnyLoRALayer } from "./layer.js";
import { adapterOf, adapters, adaptersOf, loraLayers, parentOf, type ModelAdapter } from "./registry.js";
import { ownTensors, retarget } from "./replacement.js";

const activated = new WeakMap<Module, readonly Active[]>();

/** Which adapters count now. */
export function activeOf(model: Module): Active[] {
  return [...(activated.get(model) ?? [])];
}

/** Lets exactly `active` count: their layers, their copies of modules and biases. */
export function activate(model: Module, active: readonly Active[]): void {
  withOriginals(model);
  for (const [, layer] of loraLayers(model)) layer.setActive(active);
  for (const { name } of active) {
    const adapter = adaptersOf(model).get(name);
    if (adapter !== undefined) swap(adapter, "copy");
  }
  activated.set(model, active);
}

/** @internal Refuses adapters that cannot count together: each would have a module or a bias in one place. */
export function checkTogether(model: Module, active: readonly Active[]): void {
  const owners = new Map<string, string>();
  for (const { name } of active) {
    const { modules, biases } = adapterOf(model, name);
    for (const path of [...modules.keys(), ...[...biases.keys()].map((at) => `${at}.bias`)]) {
      const other = owners.get(path);
      if (other !== undefined)
        throw new LowrankError(
          "ERR_OPTION",
          `"${other}" and "${name}" each have ${path} as a copy of their own, of which only one can count`,
        );
      owners.set(path, name);
    }
  }
}

/** @internal Puts the base's own modules and biases back in their places, and leaves the layers alone. */
export function withOriginals(model: Module): void {
  for (const adapter of adaptersOf(model).values()) swap(adapter, "original");
}

function swap(adapter: ModelAdapter, which: "original" | "copy"): void {
  for (const { owner, property, [which]: module } of adapter.modules.values())
    owner.replaceChild(property, module as Module);
  for (const { owner, [which]: bias } of adapter.biases.values())
    (owner as unknown as { bias: Tensor }).bias = bias as Tensor;
}

/**
 * Chooses which adapters count: one, several (their sum), or several with weights. With
 * `trainable` these are trained and the others are not.
 */
export function setAdapter(
  model: Module,
  names: string | readonly string[] | Record<string, number>,
  { trainable }: { trainable?: boolean } = {},
): void {
  const active: Active[] =
    typeof names === "string"
      ? [{ name: names, weight: 1 }]
      : Array.isArray(names)
        ? (names as string[]).map((name) => ({ name, weight: 1 }))
        : Object.entries(names as Record<string, number>).map(([name, weight]) => ({ name, weight }));
  for (const [i, { name, weight }] of active.entries()) {
    adapterOf(model, name);
    if (!Number.isFinite(weight))
      throw new LowrankError("ERR_OPTION", `setAdapter: the weight of "${name}" is a number, not ${weight}`);
    if (active.findIndex((one) => one.name === name) !== i)
      throw new LowrankError("ERR_OPTION", `setAdapter: names "${name}" twice; give it a weight instead`);
  }
  checkTogether(model, active);
  activate(model, active);
  if (trainable !== undefined) {
    for (const name of adapters(model))
      setTrainable(model, name, trainable && active.some((a) => a.name === name));
  }
}

/** @internal Whether the tensors of an adapter ask for gradients. */
export function setTrainable(model: Module, name: string, on: boolean): void {
  const { modules, biases } = adapterOf(model, name);
  const tensors: Tensor[] = [];
  for (const [, layer] of loraLayers(model)) {
    const adapter = layer.adapters.get(name);
    if (adapter !== undefined) tensors.push(...partsOf(adapter).map(([, tensor]) => tensor));
  }
  for (const { copy } of [...modules.values(), ...biases.values()]) tensors.push(...ownTensors(copy));
  for (const tensor of tensors) if (tensor.requiresGrad !== on) tensor.requiresGrad = on;
}

/** Runs `fn` with the model as it was before any adapter. */
export function withoutAdapters<T>(model: Module, fn: () => T): T {
  const layers = [...loraLayers(model)].map(([, layer]) => layer);
  const active = activeOf(model);
  const own = active.map(({ name }) => adaptersOf(model).get(name)).filter((a) => a !== undefined);
  for (const adapter of own) swap(adapter, "original");
  const restore = (): void => own.forEach((adapter) => swap(adapter, "copy"));
  let result: T;
  try {
    result = without(layers, fn);
  } catch (error) {
    restore();
    throw error;
  }
  if (result instanceof Promise) return result.finally(restore) as T;
  restore();
  return result;
}

/** Drops an adapter and its tensors. */
export function deleteAdapter(model: Module, name: string): void {
  const adapter = adapterOf(model, name);
  activate(
    model,
    activeOf(model).filter((a) => a.name !== name),
  );
  for (const [, layer] of loraLayers(model)) layer.removeAdapter(name);
  for (const { copy } of [...adapter.modules.values(), ...adapter.biases.values()]) copy.dispose();
  adaptersOf(model).delete(name);
  for (const [path, layer] of [...loraLayers(model)])
    if (layer.adapters.size === 0) restore(model, path, layer);
}

/** Puts the layer that `layer` replaced back. */
function restore(model: Module, path: string, layer: AnyLoRALayer): void {
  if (layer.replaced === null) return;
  layer.unmerge();
  const [owner, property] = parentOf(model, path);
  owner.replaceChild(property, layer.replaced.module);
  retarget(model, layer, layer.replaced.module);
}

/** Takes every adapter off: the model is the base again, to the bit. */
export function unload<T extends Module>(model: T): T {
  for (const name of adapters(model)) deleteAdapter(model, name);
  return model;
}
