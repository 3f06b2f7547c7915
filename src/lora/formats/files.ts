/** Saves and loads adapters. */
import { checkFlag, checkKnownOptions, checkText } from "../../arguments/check.js";
import { zeros } from "../../tensor/create.js";
import { LowrankError } from "../../errors.js";
import { checkModule } from "../../nn/children.js";
import { noGrad, scope } from "../../tensor/scope.js";
import { listParts, type Adapter } from "../layers/adapter.js";
import { setTrainable } from "../adapter/active.js";
import { addPathToErrors } from "../adapter/path-errors.js";
import { readTemplates, setTemplates, selectTemplatesToStore } from "../adapter/chat-templates.js";
import { change } from "../adapter/change.js";
import { writeConfig } from "./config.js";
import { resolveBaseName } from "./base-model.js";
import { checkAdapterName } from "../options/adapter-name.js";
import { checkReading, checkPath, readAdapter, type ReadOptions } from "./convert.js";
import { disposeFile, type AdapterFile } from "./adapter-file.js";
import { resolveFolder, writeFolder, writeTemplates } from "./folder.js";
import { describeAdapter } from "./description.js";
import { checkInit, movesBase, type InitLoraWeights } from "../options/init-weights.js";
import { restoreStart } from "../init/restore.js";
import { injectNow, type InjectReport } from "../inject/inject.js";
import type { AnyLoRALayer } from "../layers/any-layer.js";
import { findAdapter, checkFree, listLoraLayers } from "../adapter/registry.js";
import { checkBases, compareKeys, fill, fitTensors, collectState } from "./state.js";
import type { Targetable } from "../options/targets.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { createRefusal } from "../../refusals/refusal.js";

/**
 * Writes an adapter in PEFT's format, each file atomically. An adapter not named "default" goes into a subfolder of its
 * name. Equal adapters give equal bytes. Throws `ERR_UNKNOWN_ADAPTER`, `ERR_WRITE`.
 */
export async function saveAdapter(
  model: Targetable,
  dir: string,
  given: { name?: string | undefined } = {},
): Promise<void> {
  checkModule("saveAdapter", "model", model);
  checkPath("saveAdapter", "dir", dir);
  const { name = "default" } = checkKnownOptions("saveAdapter", given, ["name"]);
  checkText("saveAdapter", "name", name);
  await writeAdapter(model, resolveFolder(dir, name), name);
}

/** @internal Writes the adapter `name` into `folder` itself, whatever its name is. Throws as `saveAdapter`. */
export async function writeAdapter(model: Targetable, folder: string, name: string): Promise<void> {
  const adapter = findAdapter(model, name);
  const layers = [...adapter.layers];
  if (adapter.layers.has("")) throw createRefusal(ADAPTER_REFUSALS.layerAlone, "saveAdapter");
  const stored = new Map(layers.map(([path, layer]) => [path, layer.findAdapter(name)]));
  const plain = new Map<string, Adapter>();
  try {
    // Forms unknown to PEFT are written as the equivalent plain adapter.
    noGrad(() => {
      for (const [path, layer] of layers)
        plain.set(
          path,
          addPathToErrors("saveAdapter", path, () => scope(() => layer.buildPlainAdapter(name))),
        );
    });
    const { options, targets } = describeAdapter(model, adapter, plain);
    const state = collectState(model, adapter, { targets, bias: options.bias }, (path) => plain.get(path));
    const { source, revision } = model;
    const base = { baseModel: resolveBaseName(source, revision), revision };
    const config = writeConfig(options, targets, base);
    const start = String(options.initLoraWeights);
    const moved = [...stored.values()].some((candidate) => candidate.start !== undefined);
    await writeFolder(folder, Object.fromEntries(state), config, moved ? { start } : {});
    await writeTemplates(folder, selectTemplatesToStore(model, name));
  } finally {
    for (const [path, plainAdapter] of plain) {
      const originals = new Set(listParts(stored.get(path) as Adapter).map(([, tensor]) => tensor));
      for (const [, tensor] of listParts(plainAdapter)) if (!originals.has(tensor)) tensor.dispose();
    }
  }
}

/** Options of `loadAdapter`. */
export interface LoadAdapterOptions extends ReadOptions {
  /** The adapter's name in the model. Default: `default`. */
  name?: string | undefined;
  /** Whether the adapter can be trained further. Default: false. */
  trainable?: boolean | undefined;
}

/**
 * Loads an adapter: a folder written by PEFT or `saveAdapter`, or a file in kohya's or loralib's format. Throws
 * `ERR_UNMATCHED_KEY` for an unexpected or missing key, `ERR_SHAPE_MISMATCH` for a wrong shape or rank, and
 * `ERR_NOT_FINITE` for a value that is not finite; the model is then unchanged.
 */
export async function loadAdapter(
  model: Targetable,
  path: string,
  given: LoadAdapterOptions = {},
): Promise<InjectReport> {
  checkModule("loadAdapter", "model", model);
  checkPath("loadAdapter", "path", path);
  const known = ["name", "trainable", "loraAlpha", "enableLora", "prefix"] as const;
  const { name = "default", trainable = false, ...reading } = checkKnownOptions("loadAdapter", given, known);
  checkAdapterName("loadAdapter", "name", name);
  checkFlag("loadAdapter", "trainable", trainable);
  checkReading("loadAdapter", reading);
  checkFree(model, name, "loadAdapter");
  const read = await readAdapter(path, name, model, reading);
  try {
    const templates = readTemplates(model, read.folder);
    await checkBases(model, read);
    return change(model, () => {
      const report = injectFor(model, read, name);
      fill(fitTensors(model, name, read));
      if (read.start !== undefined) restoreStart(model, name, readInitialisation(read));
      setTemplates(model, name, templates);
      if (!trainable) setTrainable(model, name, false);
      return report;
    });
  } finally {
    disposeFile(read);
  }
}

/** The comparison of an adapter's file with a model. */
export interface AdapterFit {
  /** Whether `loadAdapter` would accept the file, judging by names and shapes. */
  fits: boolean;
  /** The number of tensors in the file that match the model. */
  matched: number;
  /** Keys of the file that the model does not have. */
  unexpected: string[];
  /** Keys missing from the file. */
  missing: string[];
  /** Tensors whose shape differs from the model's. */
  misshapen: {
    /** The tensor's name in the file. */
    key: string;
    /** The shape in the file. */
    shape: readonly number[];
    /** The model's shape. */
    expected: readonly number[];
  }[];
  /** Errors that prevented the comparison of keys. */
  problems: string[];
}

/** Compares a file with a model, which is adapted but not filled, so it must not be used afterwards. Reports the adapter's errors instead of throwing them. */
export function compareAdapter(model: Targetable, read: AdapterFile): AdapterFit {
  try {
    injectFor(model, read, "default");
    const { pairs, unexpected, missing } = compareKeys(model, "default", read);
    const misshapen = pairs.flatMap(({ key, own, given }) =>
      own.shape.join() === given.shape.join() ? [] : [{ key, shape: given.shape, expected: own.shape }],
    );
    const fits = unexpected.length + missing.length + misshapen.length === 0;
    return { fits, matched: pairs.length - misshapen.length, unexpected, missing, misshapen, problems: [] };
  } catch (error) {
    if (!(error instanceof LowrankError)) throw error;
    const nothing = { matched: 0, unexpected: [], missing: [], misshapen: [] };
    return { fits: false, ...nothing, problems: [error.message] };
  }
}

/** Returns the initialisation recorded in a file. Throws unless it is one that subtracts the start from the weight. */
function readInitialisation({ start, file }: AdapterFile): InitLoraWeights {
  const init: unknown = start;
  checkInit(init);
  if (movesBase(init)) return init;
  throw new LowrankError(
    "ERR_FILE_FORMAT",
    `${file}: its metadata say that ${start} moves the weight, which it does not`,
  );
}

/** Adds the adapter that a file describes. If nothing matches, the error names the adapter's base model. */
function injectFor(model: Targetable, { options, baseModel, file }: AdapterFile, name: string): InjectReport {
  try {
    const report = injectNow(model, { ...options, name });
    for (const [, layer] of listLoraLayers(model)) replaceByPlain(layer, name);
    return report;
  } catch (error) {
    if (!(error instanceof LowrankError && error.code === "ERR_NO_TARGETS")) throw error;
    const origin = baseModel === undefined ? "" : `; the adapter was made for ${baseModel}`;
    throw new LowrankError(error.code, `${file}: ${error.message}${origin}`, { cause: error });
  }
}

/** Replaces the compact form of a layer's adapter by zeros in PEFT's form, to be filled from the file. */
function replaceByPlain(layer: AnyLoRALayer, name: string): void {
  const adapter = layer.adapters.get(name);
  if (adapter === undefined) return;
  for (const [part, tensor] of listParts(adapter)) {
    const shape = layer.computeStoredShape(part, adapter.r);
    if (tensor.shape.join() !== shape.join())
      layer.replacePart(name, part, zeros(shape, { device: tensor.device }));
  }
}
