/** Adapting a whole model: layers are replaced in place, and which adapters a model has is kept beside it. */
import { LowrankError } from "../errors.js";
import { Linear as BaseLinear } from "../nn/linear.js";
import { Module } from "../nn/module.js";
import { keep, noGrad } from "../scope.js";
import { session } from "../native.js";
import { made, parameter, Tensor } from "../tensor.js";
import { Embedding, freshEmbedding } from "./embedding.js";
import { checkOptions, LoRALayer, without, type Active, type AnyLoRALayer } from "./layer.js";
import { freshLinear, Linear } from "./linear.js";
import { checkBias, type BiasMode } from "./mark.js";
import { defaultTargets, targeted, written, type Targetable, type Targets } from "./targets.js";

/** PEFT's LoraConfig, as far as it is built; names in camelCase. */
export interface InjectOptions {
  r?: number;
  loraAlpha?: number;
  loraDropout?: number;
  targetModules?: Targets;
  excludeModules?: Targets;
  bias?: BiasMode;
  /** Modules trained in full, as copies: each name matches the end of a path. */
  modulesToSave?: readonly string[];
  useRslora?: boolean;
  taskType?: string;
  /** The adapter's name. */
  name?: string;
  /** Whether a further adapter counts at once; the first always does. */
  active?: boolean;
}

const KNOWN = new Set<string>([
  "r",
  "loraAlpha",
  "loraDropout",
  "targetModules",
  "excludeModules",
  "bias",
  "modulesToSave",
  "useRslora",
  "taskType",
  "name",
  "active",
]);

/** What `inject` did. */
export interface InjectReport {
  /** Paths of the layers that were adapted. */
  adapted: string[];
  /** Elements that are trained, and all of the model's, the adapter's included. */
  trainable: number;
  total: number;
}

/** A module or a bias that an adapter has of its own, and what it stands for. */
interface Replacement {
  owner: Module;
  property: string;
  original: Module | Tensor;
  copy: Module | Tensor;
}

/** One adapter of a model. */
export interface ModelAdapter {
  options: Required<Omit<InjectOptions, "excludeModules" | "taskType">> &
    Pick<InjectOptions, "excludeModules" | "taskType">;
  /** Targets as PEFT writes them. */
  targets: Targets;
  /** Paths of the adapted layers. */
  paths: string[];
  /** Trained copies by path of the module, or of the bias. */
  modules: Map<string, Replacement>;
  biases: Map<string, Replacement>;
}

const adapted = new WeakMap<Module, Map<string, ModelAdapter>>();

/** The adapters of a model by name. */
export function adaptersOf(model: Module): Map<string, ModelAdapter> {
  let own = adapted.get(model);
  if (own === undefined) adapted.set(model, (own = new Map()));
  return own;
}

/** Names of the adapters that a model has. */
export function adapters(model: Module): string[] {
  return [...adaptersOf(model).keys()];
}

/** The adapter called `name`. Throws `ERR_UNKNOWN_ADAPTER`, listing those loaded. */
export function adapterOf(model: Module, name: string): ModelAdapter {
  const adapter = adaptersOf(model).get(name);
  if (adapter === undefined) {
    const loaded = adapters(model)
      .map((n) => `"${n}"`)
      .join(", ");
    throw new LowrankError(
      "ERR_UNKNOWN_ADAPTER",
      `there is no adapter named "${name}"; loaded: ${loaded || "none"}`,
    );
  }
  return adapter;
}

/** Low-rank layers of a model by path. */
export function* loraLayers(model: Module): IterableIterator<[path: string, layer: AnyLoRALayer]> {
  for (const [path, module] of model.namedModules()) if (module instanceof LoRALayer) yield [path, module];
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
  const unknown = Object.keys(given).find(
    (key) => !KNOWN.has(key) && (given as Record<string, unknown>)[key] !== undefined,
  );
  if (unknown !== undefined) throw new LowrankError("ERR_OPTION", `inject: there is no option ${unknown}`);
  checkOptions("inject", given, 1);
  checkBias(given.bias ?? "none");
  const name = given.name ?? "default";
  const own = adaptersOf(model);
  if (own.has(name))
    throw new LowrankError("ERR_ADAPTER_EXISTS", `inject: there is an adapter named "${name}" already`);
  const options: ModelAdapter["options"] = {
    r: 8,
    loraAlpha: 8,
    loraDropout: 0,
    targetModules: defaultTargets(model),
    bias: "none",
    modulesToSave: [],
    useRslora: false,
    active: own.size === 0,
    ...Object.fromEntries(Object.entries(given).filter(([, v]) => v !== undefined)),
    name,
  };
  // Copies are made of the base's own modules and biases, not of another adapter's.
  const active = activeOf(model);
  for (const other of own.values()) swap(other, "original");
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
function attach(model: Targetable, options: ModelAdapter["options"]): void {
  const saved = savedModules(model, options.modulesToSave);
  const inSaved = (path: string): boolean => saved.some((s) => path === s || path.startsWith(`${s}.`));
  const found = [...targeted(model, options.targetModules, options.excludeModules)].filter(
    ([path]) => !inSaved(path),
  );
  const adapter: ModelAdapter = {
    options,
    targets: written(model, options.targetModules),
    paths: found.map(([path]) => path),
    modules: new Map(),
    biases: new Map(),
  };
  adaptersOf(model).set(options.name, adapter);
  freeze(model);
  for (const [path, layer] of found) place(model, path, layer, options);
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

/** The outermost modules whose paths end with one of `names`: PEFT's rule, so "norm" is every norm. */
function savedModules(model: Module, names: readonly string[]): string[] {
  const paths = [...model.namedModules()].map(([path]) => path);
  const hit = paths.filter((path) => names.some((name) => path.endsWith(name)));
  if (names.length > 0 && hit.length === 0) {
    throw new LowrankError("ERR_NO_TARGETS", `modulesToSave: [${names.join(", ")}] matches no module`);
  }
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

function freeze(model: Module): void {
  const adapterTensors = new Set<Tensor>();
  for (const { modules, biases } of adaptersOf(model).values()) {
    for (const { copy } of [...modules.values(), ...biases.values()]) {
      for (const t of copy instanceof Tensor ? [copy] : copy.parameters()) adapterTensors.add(t);
    }
  }
  for (const [, layer] of loraLayers(model)) {
    for (const { loraA, loraB } of layer.adapters.values()) adapterTensors.add(loraA).add(loraB);
  }
  for (const tensor of model.parameters()) {
    if (!adapterTensors.has(tensor) && tensor.requiresGrad) tensor.requiresGrad = false;
  }
}

function place(
  model: Module,
  path: string,
  layer: Module,
  options: Required<Pick<InjectOptions, "r" | "loraAlpha" | "loraDropout" | "useRslora" | "name" | "active">>,
): void {
  let target: AnyLoRALayer;
  if (layer instanceof LoRALayer) target = layer;
  else {
    const [owner, property] = parentOf(model, path);
    // inject's layers merge only when told to.
    target =
      layer instanceof BaseLinear
        ? Linear.fromBase(layer, { mergeWeights: false })
        : Embedding.fromBase(layer as Embedding, { mergeWeights: false });
    target.namedByAdapter = true;
    target.replaced = { module: layer };
    owner.replaceChild(property, target);
  }
  const adapter =
    target instanceof BaseLinear
      ? freshLinear(target, options)
      : freshEmbedding(target as unknown as Embedding, options);
  target.addAdapter(options.name, adapter, false);
}

/** The module that holds `path`, under which name, and the module there. */
export function parentOf(model: Module, path: string): [owner: Module, property: string, module: Module] {
  for (const [prefix, module] of model.namedModules()) {
    if (prefix !== "" && !path.startsWith(`${prefix}.`)) continue;
    for (const [name, child] of module.children()) {
      if ((prefix === "" ? name : `${prefix}.${name}`) === path) return [module, name, child];
    }
  }
  throw new LowrankError("ERR_INTERNAL", `no module holds ${path}`);
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

const activated = new WeakMap<Module, readonly Active[]>();

/** Which adapters count now. */
export function activeOf(model: Module): Active[] {
  return [...(activated.get(model) ?? [])];
}

/** Lets exactly `active` count: their layers, their copies of modules and biases. */
export function activate(model: Module, active: readonly Active[]): void {
  for (const adapter of adaptersOf(model).values()) swap(adapter, "original");
  for (const [, layer] of loraLayers(model)) layer.setActive(active);
  for (const { name } of active) {
    const adapter = adaptersOf(model).get(name);
    if (adapter !== undefined) swap(adapter, "copy");
  }
  activated.set(model, active);
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
  for (const { name } of active) adapterOf(model, name);
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
    if (adapter !== undefined) tensors.push(adapter.loraA, adapter.loraB);
  }
  for (const { copy } of [...modules.values(), ...biases.values()])
    tensors.push(...(copy instanceof Tensor ? [copy] : copy.parameters()));
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
}

/** Takes every adapter off: the model is the base again, to the bit. */
export function unload<T extends Module>(model: T): T {
  for (const name of adapters(model)) deleteAdapter(model, name);
  return model;
}
