/** Lists the tensors of an adapter under PEFT's keys, and copies a file's values into them. */
import { LowrankError } from "../../errors.js";
import { zeros } from "../../tensor/create.js";
import { Embedding } from "../../nn/embedding.js";
import type { Module } from "../../nn/module.js";
import { noGrad, scope } from "../../tensor/scope.js";
import { measureStoredDifference } from "../../tensor/stored-difference.js";
import { isTensor, type Tensor } from "../../tensor/tensor.js";
import { listParts, type Adapter } from "../layers/adapter.js";
import { PREFIX, listSome, type AdapterFile } from "./adapter-file.js";
import { LoRALayer } from "../layers/layer.js";
import type { BiasMode } from "../options/bias.js";
import { findAdapter, listBaseModules, type ModelAdapter } from "../adapter/registry.js";
import { isWithin, listSavedTensors } from "../adapter/replacement.js";
import { findAttention, isAdaptable, type Targets } from "../options/targets.js";

/** Modules whose base weight PEFT writes together with their adapter, if a target is their name or a pattern. */
const SAVED_WITH_BASE = ["embed_tokens", "lm_head"];
const BASE = ".base_layer.weight";

/** Returns an adapter's tensors under PEFT's keys. `inPlace` adds biases of the model that were trained without a copy. */
export function collectAdapterState(
  model: Module,
  name: string,
  inPlace: BiasMode = "none",
): Map<string, Tensor> {
  const adapter = findAdapter(model, name);
  const { note, layers } = adapter;
  const bias = note?.options.bias ?? inPlace;
  return collectState(model, adapter, { targets: note?.targets ?? [...layers.keys()], bias }, (path) =>
    layers.get(path)?.adapters.get(name),
  );
}

/** Like `adapterState`, but with the adapters that `adapterAt` returns for the layers. */
export function collectState(
  model: Module,
  { layers, modules, biases }: ModelAdapter,
  { targets, bias: mode }: { targets: Targets; bias: BiasMode },
  adapterAt: (path: string) => Adapter | undefined,
): Map<string, Tensor> {
  const state = new Map<string, Tensor>();
  const withBase = typeof targets === "string" || SAVED_WITH_BASE.some((module) => targets.includes(module));
  for (const [path, layer] of layers) {
    const adapter = adapterAt(path);
    if (adapter === undefined) continue;
    for (const [part, tensor] of listParts(adapter))
      state.set(`${PREFIX}${resolveDiskPath(path, layers)}.${layer.nameOnDisk(part)}`, tensor);
    if (withBase && SAVED_WITH_BASE.includes(path.split(".").pop() as string))
      state.set(`${PREFIX}${path}${BASE}`, layer.baseWeight);
  }
  for (const [path, { copy }] of modules) {
    for (const [key, tensor] of Object.entries(listSavedTensors(copy as Module)))
      state.set(`${PREFIX}${path}.${key}`, tensor);
  }
  const trained = new Map([...biases].map(([path, { copy }]) => [path, copy as Tensor]));
  // Biases trained in place belong to the model.
  if (mode !== "none" && biases.size === 0) {
    for (const [path, module] of listBaseModules(model)) {
      const bias = module instanceof LoRALayer ? module.baseBias : (module as { bias?: unknown }).bias;
      if (isTensor(bias) && (mode === "all" || layers.has(path)) && !isWithin(path, [...modules.keys()]))
        trained.set(path, bias);
    }
  }
  for (const [path, bias] of trained)
    state.set(`${PREFIX}${path}.${layers.has(path) ? "base_layer.bias" : "bias"}`, bias);
  return state;
}

/** Returns a layer's path in PEFT's keys. PEFT wraps an attention layer, so its output projection is below `base_layer`. */
function resolveDiskPath(path: string, layers: ModelAdapter["layers"]): string {
  const attention = findAttention(path, layers);
  return attention === undefined ? path : `${attention}.base_layer${path.slice(attention.length)}`;
}

// For bias "all" with modules_to_save, PEFT writes both of these keys. The second repeats a tensor that also has its
// plain key.
const DOUBLED = /\.(original_module|modules_to_save)\.bias$/;

/** A tensor of an adapter and the value to copy into it. */
export interface TensorCopy {
  key: string;
  own: Tensor;
  given: Tensor;
}

/** The comparison of a file's tensors with an adapter's. */
export interface Comparison {
  /** Tensors that both have. */
  pairs: TensorCopy[];
  /** Keys that only the file has, and keys that only the model has. */
  unexpected: string[];
  missing: string[];
}

/** Compares the keys of a file with the keys of adapter `name`. */
export function compareKeys(
  model: Module,
  name: string,
  { tensors, options }: Pick<AdapterFile, "tensors" | "options">,
  inPlace: BiasMode = "none",
): Comparison {
  const state = collectAdapterState(model, name, inPlace);
  const modules = new Map(listBaseModules(model));
  return {
    pairs: [...state].flatMap(([key, own]) =>
      key in tensors ? [{ key, own, given: tensors[key] as Tensor }] : [],
    ),
    unexpected: Object.entries(tensors).flatMap(([key, { shape }]) =>
      state.has(key) ||
      DOUBLED.test(key) ||
      findWeightBeside(modules, key, options)?.shape.join() === shape.join()
        ? []
        : [key],
    ),
    missing: [...state.keys()].filter((key) => !(key in tensors) && !key.endsWith(BASE)),
  };
}

/**
 * Pairs a file's tensors with the tensors of adapter `name`, after checking every key and shape. With `padded` a smaller
 * rank is also accepted. Writes nothing. Throws `ERR_UNMATCHED_KEY`, `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`.
 */
export function fitTensors(
  model: Module,
  name: string,
  { file, tensors, baseModel, options }: AdapterFile,
  { padded = false, inPlace = "none" }: { padded?: boolean | undefined; inPlace?: BiasMode | undefined } = {},
): TensorCopy[] {
  const origin = baseModel === undefined ? "" : `; the adapter was made for ${baseModel}`;
  const { pairs, unexpected, missing } = compareKeys(model, name, { tensors, options }, inPlace);
  if (unexpected.length + missing.length > 0) {
    const parts = [
      unexpected.length > 0 ? `not of this model: ${listSome(unexpected)}` : "",
      missing.length > 0 ? `missing: ${listSome(missing)}` : "",
    ];
    throw new LowrankError("ERR_UNMATCHED_KEY", `${file}: ${parts.filter(Boolean).join("; ")}${origin}`);
  }
  for (const { key, own, given } of pairs) {
    // A copied module may have an integer buffer.
    if ((given.dtype === "i32") !== (own.dtype === "i32"))
      throw new LowrankError(
        "ERR_DTYPE",
        `${file}: ${key} holds ${given.dtype}, where ${own.dtype} was expected`,
      );
    if (given.shape.join() === own.shape.join() || (padded && hasLowerRank(key, own, given))) continue;
    const [rank, wanted] = [readRank(key, given), readRank(key, own)];
    const where = `${file}: ${key} is [${given.shape.join(", ")}], this model takes [${own.shape.join(", ")}]`;
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      rank !== wanted && matchesButRank(key, own, given)
        ? `${where}: its rank is ${rank}, and ${padded ? `that of the adapter it replaces is ${wanted}; load it as another one` : `its configuration says ${wanted} (r ${options.r ?? 8}, rank_pattern)`}`
        : `${where}${origin}`,
    );
  }
  return pairs.filter(({ key }) => !key.endsWith(BASE));
}

/** Copies all of a file's tensors into the adapter's, or none. Pads a smaller rank with zeros, which changes no product. */
export function fill(pairs: readonly TensorCopy[]): void {
  noGrad(() =>
    scope(() => {
      // Conversions may fail, so they come before the first copy.
      const ready = pairs.map(({ own, given }) =>
        fillUp(own.dtype === "i32" ? given : given.to("f32"), own.shape).to(own.device),
      );
      for (const [i, { own }] of pairs.entries()) own.copy(ready[i] as Tensor);
    }),
  );
}

/**
 * Compares base weights in an adapter's file with the model's, up to storage precision. A difference means that the
 * adapter belongs to another model. Throws `ERR_UNMATCHED_KEY`, `ERR_SHAPE_MISMATCH`.
 */
export async function checkBases(model: Module, { file, tensors, options }: AdapterFile): Promise<void> {
  const modules = new Map(listBaseModules(model));
  for (const [key, given] of Object.entries(tensors)) {
    const weight = findWeightBeside(modules, key, options);
    if (weight === undefined || given.dtype === "i32") continue;
    if (weight.shape.join() === given.shape.join()) await checkBase(key, weight, given, file);
    else if (!key.endsWith(BASE))
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `${file}: ${key} is [${given.shape.join(", ")}], and the model's own [${weight.shape.join(", ")}]: the adapter is for a model of another vocabulary`,
      );
  }
}

/**
 * Returns the weight of the model that a PEFT key names, if the key is not an adapter's: the weight of an adapted layer,
 * or of an embedding or head, which PEFT writes if the vocabulary may have grown. With fully trained modules the latter
 * kind of key may belong to one of them, so it is not matched.
 */
function findWeightBeside(
  modules: ReadonlyMap<string, Module>,
  key: string,
  { modulesToSave = [], trainableTokenIndices }: AdapterFile["options"],
): Tensor | undefined {
  if (!key.startsWith(PREFIX) || !key.endsWith(".weight")) return undefined;
  const base = key.endsWith(BASE);
  const path = key.slice(PREFIX.length, base ? -BASE.length : -".weight".length);
  const module = modules.get(path);
  const embeds = module instanceof Embedding || SAVED_WITH_BASE.includes(path.split(".").pop() as string);
  const isStored = base
    ? isAdaptable(module)
    : embeds && modulesToSave.length === 0 && !trainableTokenIndices;
  const own =
    module instanceof LoRALayer ? module.baseWeight : (module as { weight?: unknown } | undefined)?.weight;
  return isStored && isTensor(own) ? own : undefined;
}

/** Returns the rank dimension of A or B. */
function findRankDim(key: string): number | undefined {
  if (/\.(lora_A\.weight|lora_embedding_A)$/.test(key)) return 0;
  return /\.(lora_B\.weight|lora_embedding_B)$/.test(key) ? 1 : undefined;
}

function readRank(key: string, { shape }: Tensor): number | undefined {
  const dim = findRankDim(key);
  return dim === undefined ? undefined : shape[dim];
}

function matchesButRank(key: string, a: Tensor, b: Tensor): boolean {
  const dim = findRankDim(key);
  return a.shape.length === b.shape.length && a.shape.every((size, d) => d === dim || size === b.shape[d]);
}

function hasLowerRank(key: string, own: Tensor, given: Tensor): boolean {
  return matchesButRank(key, own, given) && (readRank(key, given) ?? Infinity) < (readRank(key, own) ?? 0);
}

/** Pads `given` with zeros to `shape`. */
function fillUp(given: Tensor, shape: readonly number[]): Tensor {
  const dim = given.shape.findIndex((size, d) => size < (shape[d] as number));
  if (dim < 0) return given;
  const rest = given.shape.map((size, d) => (d === dim ? (shape[d] as number) - size : size));
  return given.concat(zeros(rest, { device: given.device }), dim);
}

/** Throws `ERR_UNMATCHED_KEY` if a base weight in an adapter's file differs from the model's by more than storage precision. */
async function checkBase(key: string, own: Tensor, given: Tensor, file: string): Promise<void> {
  const difference = await measureStoredDifference(own, given);
  if (difference !== 0) {
    throw new LowrankError(
      "ERR_UNMATCHED_KEY",
      `${file}: ${key} differs from the model's own by up to ${difference}: the adapter is for a model with another embedding`,
    );
  }
}
