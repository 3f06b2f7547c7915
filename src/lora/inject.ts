/** Adapting a whole model: layers are replaced in place, and which adapters a model has is kept beside it. */
import { LowrankError } from "../errors.js";
import { Module } from "../nn/module.js";
import { session } from "../native.js";
import { keep, noGrad } from "../scope.js";
import { made, parameter, Tensor } from "../tensor.js";
import { checkRoom } from "./adapter.js";
import { activate, activeOf, deleteAdapter, withOriginals } from "./active.js";
import { adaptable } from "./kinds.js";
import { partsOf } from "./layer.js";
import { completed, headsOf, isHead, type AdapterOptions, type InjectOptions } from "./options.js";
import { patternReader } from "./patterns.js";
import { adapterOf, adaptersOf, loraLayers, parentOf, type ModelAdapter } from "./registry.js";
import { targeted, written, type Targetable } from "./targets.js";

/** What `inject` did. */
export interface InjectReport {
  /** Paths of the layers that were adapted. */
  adapted: string[];
  /** Elements that are trained, and all of the model's, the adapter's included. */
  trainable: number;
  total: number;
}

/**
 * Gives `model` an adapter, in place: each targeted layer is replaced by its low-rank form, which
 * keeps its weights; the base is frozen. Source: PEFT's inject_adapter_in_model.
 *
 * Throws `ERR_NO_TARGETS`, `ERR_ADAPTER_EXISTS`, `ERR_OPTION`; the model is then as it was.
 */
// A promise, since later ways to start an adapter read the weights back.
// eslint-disable-next-line @typescript-eslint/require-await
export async function inject(model: Targetable, options: InjectOptions = {}): Promise<InjectReport> {
  return injectNow(model, options);
}

/** @internal */
export function injectNow(model: Targetable, given: InjectOptions): InjectReport {
  const own = adaptersOf(model);
  const options = { ...completed(model, given), ...(own.size === 0 ? { active: true } : {}) };
  const { name } = options;
  if (own.has(name))
    throw new LowrankError("ERR_ADAPTER_EXISTS", `inject: there is an adapter named "${name}" already`);
  // Copies are made of the base's own modules and biases, not of another adapter's.
  const active = activeOf(model);
  withOriginals(model);
  try {
    attach(model, options);
  } catch (error) {
    if (own.has(name)) deleteAdapter(model, name);
    activate(model, active);
    throw error;
  }
  activate(model, options.active ? [...active, { name, weight: 1 }] : active);
  return { adapted: adapterOf(model, name).paths, ...counts(model) };
}

/** Makes an adapter, which counts for nothing yet. */
function attach(model: Targetable, options: AdapterOptions): void {
  const saved = savedModules(model, options);
  const inSaved = (path: string): boolean => saved.some((s) => path === s || path.startsWith(`${s}.`));
  const found = [...targeted(model, options)].filter(([path]) => !inSaved(path));
  const rankOf = patternReader(options.rankPattern, "rankPattern");
  const alphaOf = patternReader(options.alphaPattern, "alphaPattern");
  const weights = found.map(([path, layer]) => ({ r: rankOf(path) ?? options.r, weight: weightOf(layer) }));
  const elements = weights.reduce((sum, { r, weight }) => sum + r * weight.shape.reduce((a, b) => a + b), 0);
  if (weights[0] !== undefined) checkRoom("inject", weights[0].weight.device, elements);
  const adapter: ModelAdapter = {
    options,
    targets: written(model, options),
    paths: found.map(([path]) => path),
    modules: new Map(),
    biases: new Map(),
  };
  adaptersOf(model).set(options.name, adapter);
  freeze(model);
  for (const [path, layer] of found) {
    const [r = options.r, loraAlpha = options.loraAlpha] = [rankOf(path), alphaOf(path)];
    place(model, path, layer, { ...options, r, loraAlpha });
  }
  for (const path of saved) {
    const [owner, property, original] = parentOf(model, path);
    adapter.modules.set(path, { owner, property, original, copy: cloned(original) });
  }
  for (const [path, module] of model.namedModules()) {
    const { bias } = module as { bias?: Tensor | null };
    const wanted = options.bias === "all" || (options.bias === "lora_only" && adapter.paths.includes(path));
    if (!bias || !wanted || inSaved(path)) continue;
    adapter.biases.set(path, { owner: module, property: "bias", original: bias, copy: trainableCopy(bias) });
  }
}

/**
 * The outermost modules whose paths end with one of `names`: PEFT's rule, so "norm" is every norm.
 * What heads are usually called may be missing among others.
 */
function savedModules(model: Module, { modulesToSave: names, taskType }: AdapterOptions): string[] {
  const paths = [...model.namedModules()].map(([path]) => path);
  const missing = names.filter((name) => !paths.some((path) => path.endsWith(name)));
  const all = missing.length === names.length && headsOf(taskType).length === 0;
  const wrong = all ? missing : missing.filter((name) => !isHead(name));
  if (wrong.length > 0) {
    throw new LowrankError(
      "ERR_NO_TARGETS",
      `modulesToSave: ${wrong.join(", ")} ends the path of no module; paths are such as ${paths.slice(-3).join(", ")}`,
    );
  }
  const hit = paths.filter((path) => names.some((name) => path.endsWith(name)));
  return hit.filter((path) => !hit.some((outer) => path.startsWith(`${outer}.`)));
}

/** Elements of a model that are trained, and all of them. */
export function counts(model: Module): { trainable: number; total: number } {
  let [trainable, total] = [0, 0];
  const seen = new Set<Tensor>();
  for (const tensor of Object.values(model.stateDict())) {
    if (seen.has(tensor)) continue;
    seen.add(tensor);
    total += tensor.size;
    if (tensor.requiresGrad) trainable += tensor.size;
  }
  return { trainable, total };
}

function weightOf(layer: Module): Tensor {
  return (layer as Module & { weight: Tensor }).weight;
}

function freeze(model: Module): void {
  const adapterTensors = new Set<Tensor>();
  for (const { modules, biases } of adaptersOf(model).values()) {
    for (const { copy } of [...modules.values(), ...biases.values()]) {
      for (const t of copy instanceof Tensor ? [copy] : copy.parameters()) adapterTensors.add(t);
    }
  }
  for (const [, layer] of loraLayers(model)) {
    for (const adapter of layer.adapters.values())
      for (const [, tensor] of partsOf(adapter)) adapterTensors.add(tensor);
  }
  for (const tensor of model.parameters()) {
    if (!adapterTensors.has(tensor) && tensor.requiresGrad) tensor.requiresGrad = false;
  }
}

function place(model: Module, path: string, layer: Module, options: AdapterOptions): void {
  const target = adaptable(layer);
  if (target !== layer) {
    const [owner, property] = parentOf(model, path);
    target.replaced = { module: layer };
    owner.replaceChild(property, target);
  }
  target.namedByAdapter = true;
  target.addAdapter(options.name, target.freshAdapter(options), false);
}

/** A module of the same kind whose tensors are copies that are trained. */
function cloned(module: Module): Module {
  const copy = Object.assign(Object.create(Object.getPrototypeOf(module) as object), module) as Module;
  for (const [key, value] of Object.entries(copy)) {
    if (value instanceof Tensor) (copy as unknown as Record<string, unknown>)[key] = trainableCopy(value);
  }
  for (const [name, child] of module.children()) copy.replaceChild(name, cloned(child));
  return copy;
}

function trainableCopy(tensor: Tensor): Tensor {
  const copy = noGrad(() =>
    tensor.dtype === "f32" ? made(() => session().unary("copy", tensor.id)) : tensor.to("f32"),
  );
  keep(copy);
  return parameter(copy);
}
