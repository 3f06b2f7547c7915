/** The tensors of an adapter under PEFT's keys, and writing a file's values over them. */
import { LowrankError } from "../../errors.js";
import { zeros } from "../../create.js";
import { Embedding } from "../../nn/embedding.js";
import type { Module } from "../../nn/module.js";
import { noGrad, scope } from "../../scope.js";
import { storedDifference } from "../../stored-difference.js";
import { isTensor, type Tensor } from "../../tensor.js";
import { partsOf, type Adapter } from "../layers/adapter.js";
import { PREFIX, some, type AdapterFile } from "./adapter-file.js";
import { LoRALayer } from "../layers/layer.js";
import type { BiasMode } from "../options/bias.js";
import { adapterOf, baseModules, type ModelAdapter } from "../adapter/registry.js";
import { isWithin, savedTensors } from "../adapter/replacement.js";
import { attentionOf, isAdaptable, type Targets } from "../options/targets.js";

/** Modules whose base weight PEFT writes beside an adapter of theirs, when a target is their name or a pattern. */
const SAVED_WITH_BASE = ["embed_tokens", "lm_head"];
const BASE = ".base_layer.weight";

/** An adapter's own tensors under PEFT's keys; with `inPlace` biases of the model among them, trained as they are. */
export function adapterState(model: Module, name: string, inPlace: BiasMode = "none"): Map<string, Tensor> {
  const adapter = adapterOf(model, name);
  const { note, layers } = adapter;
  const bias = note?.options.bias ?? inPlace;
  return stateOf(model, adapter, { targets: note?.targets ?? [...layers.keys()], bias }, (path) =>
    layers.get(path)?.adapters.get(name),
  );
}

/** The same of other adapters in their layers. */
export function stateOf(
  model: Module,
  { layers, modules, biases }: ModelAdapter,
  { targets, bias: mode }: { targets: Targets; bias: BiasMode },
  held: (path: string) => Adapter | undefined,
): Map<string, Tensor> {
  const state = new Map<string, Tensor>();
  const withBase = typeof targets === "string" || SAVED_WITH_BASE.some((module) => targets.includes(module));
  for (const [path, layer] of layers) {
    const adapter = held(path);
    if (adapter === undefined) continue;
    for (const [part, tensor] of partsOf(adapter))
      state.set(`${PREFIX}${onDisk(path, layers)}.${layer.nameOnDisk(part)}`, tensor);
    if (withBase && SAVED_WITH_BASE.includes(path.split(".").pop() as string))
      state.set(`${PREFIX}${path}${BASE}`, layer.baseWeight);
  }
  for (const [path, { copy }] of modules) {
    for (const [key, tensor] of Object.entries(savedTensors(copy as Module)))
      state.set(`${PREFIX}${path}.${key}`, tensor);
  }
  const trained = new Map([...biases].map(([path, { copy }]) => [path, copy as Tensor]));
  // Biases that were trained in place are the model's own.
  if (mode !== "none" && biases.size === 0) {
    for (const [path, module] of baseModules(model)) {
      const bias = module instanceof LoRALayer ? module.baseBias : (module as { bias?: unknown }).bias;
      if (isTensor(bias) && (mode === "all" || layers.has(path)) && !isWithin(path, [...modules.keys()]))
        trained.set(path, bias);
    }
  }
  for (const [path, bias] of trained)
    state.set(`${PREFIX}${path}.${layers.has(path) ? "base_layer.bias" : "bias"}`, bias);
  return state;
}

/** The path of a layer in PEFT's keys: it wraps an adapted attention layer, whose output projection is below that. */
function onDisk(path: string, layers: ModelAdapter["layers"]): string {
  const attention = attentionOf(path, layers);
  return attention === undefined ? path : `${attention}.base_layer${path.slice(attention.length)}`;
}

// PEFT writes these two beside each other for bias "all" with modules_to_save; the second is the
// module's own, under its plain key as well.
const DOUBLED = /\.(original_module|modules_to_save)\.bias$/;

/** A tensor of an adapter, and what is written over it. */
export interface Fitted {
  key: string;
  own: Tensor;
  given: Tensor;
}

/** How the tensors of a file and those of an adapter go together. */
export interface Comparison {
  /** Those that both have. */
  pairs: Fitted[];
  /** Keys of the file that the model has no place for, and keys of the model's that the file lacks. */
  unexpected: string[];
  missing: string[];
}

/** Which keys of a file adapter `name` of a model has. */
export function compared(
  model: Module,
  name: string,
  { tensors, options }: Pick<AdapterFile, "tensors" | "options">,
  inPlace: BiasMode = "none",
): Comparison {
  const state = adapterState(model, name, inPlace);
  const modules = new Map(baseModules(model));
  return {
    pairs: [...state].flatMap(([key, own]) =>
      key in tensors ? [{ key, own, given: tensors[key] as Tensor }] : [],
    ),
    unexpected: Object.entries(tensors).flatMap(([key, { shape }]) =>
      state.has(key) ||
      DOUBLED.test(key) ||
      weightBeside(modules, key, options)?.shape.join() === shape.join()
        ? []
        : [key],
    ),
    missing: [...state.keys()].filter((key) => !(key in tensors) && !key.endsWith(BASE)),
  };
}

/**
 * The tensors of a file beside those of adapter `name` that they are for, once every key and shape is seen to fit. With
 * `padded` a smaller rank fits, too. Nothing is written. Throws `ERR_UNMATCHED_KEY`, `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`.
 */
export function fitted(
  model: Module,
  name: string,
  { file, tensors, baseModel, options }: AdapterFile,
  { padded = false, inPlace = "none" }: { padded?: boolean | undefined; inPlace?: BiasMode | undefined } = {},
): Fitted[] {
  const made = baseModel === undefined ? "" : `; the adapter was made for ${baseModel}`;
  const { pairs, unexpected, missing } = compared(model, name, { tensors, options }, inPlace);
  if (unexpected.length + missing.length > 0) {
    const parts = [
      unexpected.length > 0 ? `not of this model: ${some(unexpected)}` : "",
      missing.length > 0 ? `missing: ${some(missing)}` : "",
    ];
    throw new LowrankError("ERR_UNMATCHED_KEY", `${file}: ${parts.filter(Boolean).join("; ")}${made}`);
  }
  for (const { key, own, given } of pairs) {
    // A copied module may count in a buffer.
    if ((given.dtype === "i32") !== (own.dtype === "i32"))
      throw new LowrankError(
        "ERR_DTYPE",
        `${file}: ${key} holds ${given.dtype}, where ${own.dtype} was expected`,
      );
    if (given.shape.join() === own.shape.join() || (padded && rankBelow(key, own, given))) continue;
    const [rank, asked] = [rankOf(key, given), rankOf(key, own)];
    const where = `${file}: ${key} is [${given.shape.join(", ")}], this model takes [${own.shape.join(", ")}]`;
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      rank !== asked && sameButRank(key, own, given)
        ? `${where}: its rank is ${rank}, and ${padded ? `that of the adapter it replaces is ${asked}; load it as another one` : `its configuration says ${asked} (r ${options.r ?? 8}, rank_pattern)`}`
        : `${where}${made}`,
    );
  }
  return pairs.filter(({ key }) => !key.endsWith(BASE));
}

/** Writes a file's tensors over those that they fit, all or none; a smaller rank is filled up with zeros, which changes no product. */
export function fill(pairs: readonly Fitted[]): void {
  noGrad(() =>
    scope(() => {
      // What may fail comes first: then every value is copied in its place.
      const ready = pairs.map(({ own, given }) =>
        filledUp(own.dtype === "i32" ? given : given.to("f32"), own.shape).to(own.device),
      );
      for (const [i, { own }] of pairs.entries()) own.copy(ready[i] as Tensor);
    }),
  );
}

/**
 * Refuses a file that holds base weights other than the model's own, but for storage: its adapter is another model's.
 * Throws `ERR_UNMATCHED_KEY`.
 */
export async function checkBases(model: Module, { file, tensors, options }: AdapterFile): Promise<void> {
  const modules = new Map(baseModules(model));
  for (const [key, given] of Object.entries(tensors)) {
    const own = weightBeside(modules, key, options);
    if (own === undefined || given.dtype === "i32") continue;
    if (own.shape.join() === given.shape.join()) await checkBase(key, own, given, file);
    else if (!key.endsWith(BASE))
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `${file}: ${key} is [${given.shape.join(", ")}], and the model's own [${own.shape.join(", ")}]: the adapter is for a model of another vocabulary`,
      );
  }
}

/**
 * The weight of the model that a key of PEFT's names which is no adapter's: that of an adapted layer, or an embedding's or
 * the head's own, which PEFT writes where a vocabulary may have grown. Beside modules that are trained in full such a key
 * may be one of theirs.
 */
function weightBeside(
  modules: ReadonlyMap<string, Module>,
  key: string,
  { modulesToSave = [], trainableTokenIndices }: AdapterFile["options"],
): Tensor | undefined {
  if (!key.startsWith(PREFIX) || !key.endsWith(".weight")) return undefined;
  const base = key.endsWith(BASE);
  const path = key.slice(PREFIX.length, base ? -BASE.length : -".weight".length);
  const module = modules.get(path);
  const embeds = module instanceof Embedding || SAVED_WITH_BASE.includes(path.split(".").pop() as string);
  const held = base ? isAdaptable(module) : embeds && modulesToSave.length === 0 && !trainableTokenIndices;
  const own =
    module instanceof LoRALayer ? module.baseWeight : (module as { weight?: unknown } | undefined)?.weight;
  return held && isTensor(own) ? own : undefined;
}

/** The dimension that counts ranks, of A and of B. */
function rankDim(key: string): number | undefined {
  if (/\.(lora_A\.weight|lora_embedding_A)$/.test(key)) return 0;
  return /\.(lora_B\.weight|lora_embedding_B)$/.test(key) ? 1 : undefined;
}

function rankOf(key: string, { shape }: Tensor): number | undefined {
  const dim = rankDim(key);
  return dim === undefined ? undefined : shape[dim];
}

function sameButRank(key: string, a: Tensor, b: Tensor): boolean {
  const dim = rankDim(key);
  return a.shape.length === b.shape.length && a.shape.every((size, d) => d === dim || size === b.shape[d]);
}

function rankBelow(key: string, own: Tensor, given: Tensor): boolean {
  return sameButRank(key, own, given) && (rankOf(key, given) ?? Infinity) < (rankOf(key, own) ?? 0);
}

/** `given` with zeros up to `shape`. */
function filledUp(given: Tensor, shape: readonly number[]): Tensor {
  const dim = given.shape.findIndex((size, d) => size < (shape[d] as number));
  if (dim < 0) return given;
  const rest = given.shape.map((size, d) => (d === dim ? (shape[d] as number) - size : size));
  return given.concat(zeros(rest, { device: given.device }), dim);
}

/** A base weight in an adapter's file is the model's own, but for storage, or the adapter is another model's. */
async function checkBase(key: string, own: Tensor, given: Tensor, file: string): Promise<void> {
  const difference = await storedDifference(own, given);
  if (difference !== 0) {
    throw new LowrankError(
      "ERR_UNMATCHED_KEY",
      `${file}: ${key} differs from the model's own by up to ${difference}: the adapter is for a model with another embedding`,
    );
  }
}
