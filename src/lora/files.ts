/** Adapters to files and back. */
import { zeros } from "../create.js";
import { LowrankError } from "../errors.js";
import { noGrad } from "../scope.js";
import { partsOf, type Adapter } from "./adapter.js";
import { deleteAdapter, setTrainable } from "./active.js";
import { writeConfig } from "./config.js";
import { readAdapter, type ReadOptions } from "./convert.js";
import { disposeFile, type AdapterFile } from "./formats/adapter-file.js";
import { folderOf, writeFolder } from "./formats/folder.js";
import { ranksAndAlphas } from "./exact.js";
import { checkInit, movesBase, type InitLoraWeights } from "./init/kind.js";
import { restoreStart } from "./init/restore.js";
import { injectNow, type InjectReport } from "./inject.js";
import type { AnyLoRALayer } from "./any-layer.js";
import { adapterOf, adaptersOf, loraLayers } from "./registry.js";
import { fill, stateOf } from "./state.js";
import type { Targetable } from "./targets.js";

/** What a model says of itself, for the configuration. */
interface Described extends Targetable {
  source?: string;
}

/**
 * Writes an adapter as PEFT does, each file whole or not at all; one not called "default" goes into a folder of its
 * name. The same adapter gives the same bytes. Throws `ERR_UNKNOWN_ADAPTER`, `ERR_WRITE`.
 */
export async function saveAdapter(model: Described, dir: string, { name = "default" } = {}): Promise<void> {
  const { options, targets } = adapterOf(model, name);
  const layers = [...loraLayers(model)].filter(([, layer]) => layer.adapters.has(name));
  // What PEFT has no form for is written as the plain adapter that it equals.
  const plain = noGrad(() => new Map(layers.map(([path, layer]) => [path, layer.plainAdapter(name)])));
  const own = new Map(layers.map(([path, layer]) => [path, layer.adapters.get(name) as Adapter]));
  const made = [...plain].filter(([path, adapter]) => adapter !== own.get(path));
  try {
    const byLayer = new Map(layers.map(([path, layer]) => [layer, plain.get(path)]));
    const state = stateOf(model, name, (layer) => byLayer.get(layer));
    const written = made.length === 0 ? options : { ...options, ...ranksAndAlphas(plain) };
    const config = writeConfig(written, targets, { baseModel: model.source });
    const start = String(options.initLoraWeights);
    const moved = [...own.values()].some((adapter) => adapter.start !== undefined);
    await writeFolder(folderOf(dir, name), Object.fromEntries(state), config, moved ? { start } : {});
  } finally {
    for (const [path, adapter] of made) {
      const kept = new Set(partsOf(own.get(path) as Adapter).map(([, tensor]) => tensor));
      for (const [, tensor] of partsOf(adapter)) if (!kept.has(tensor)) tensor.dispose();
    }
  }
}

export interface LoadAdapterOptions extends ReadOptions {
  name?: string;
  /** Whether it is trained further. */
  trainable?: boolean;
}

/**
 * Reads an adapter: a folder that PEFT or `saveAdapter` wrote, or a file of kohya's or loralib's. A key that matches nothing or is missing is
 * `ERR_UNMATCHED_KEY`, a wrong shape or rank `ERR_SHAPE_MISMATCH`, a value that is not finite
 * `ERR_NOT_FINITE`; the model is then as it was.
 */
export async function loadAdapter(
  model: Described,
  path: string,
  { name = "default", trainable = false, ...options }: LoadAdapterOptions = {},
): Promise<InjectReport> {
  if (adaptersOf(model).has(name))
    throw new LowrankError("ERR_ADAPTER_EXISTS", `loadAdapter: there is an adapter named "${name}" already`);
  const read = await readAdapter(path, name, model, options);
  try {
    const trained = [...model.parameters()].filter((tensor) => tensor.requiresGrad);
    const report = injectFor(model, read, name);
    try {
      await fill(model, name, read);
      if (read.start !== undefined) restoreStart(model, name, startOf(read));
    } catch (error) {
      deleteAdapter(model, name);
      for (const tensor of trained) tensor.requiresGrad = true;
      throw error;
    }
    if (!trainable) setTrainable(model, name, false);
    return report;
  } finally {
    disposeFile(read);
  }
}

/** How the adapter in a file started, which is one of the ways that take the start out of the weight. */
function startOf({ start, file }: AdapterFile): InitLoraWeights {
  const init: unknown = start;
  checkInit(init);
  if (movesBase(init)) return init;
  throw new LowrankError(
    "ERR_FILE_FORMAT",
    `${file}: its metadata say that ${start} moves the weight, which it does not`,
  );
}

/** Makes the adapter that a file describes; where nothing fits, says which model it was made for. */
function injectFor(model: Described, { options, baseModel, file }: AdapterFile, name: string): InjectReport {
  try {
    const report = injectNow(model, { ...options, name });
    for (const [, layer] of loraLayers(model)) asPlain(layer, name);
    return report;
  } catch (error) {
    if (!(error instanceof LowrankError && error.code === "ERR_NO_TARGETS")) throw error;
    const made = baseModel === undefined ? "" : `; the adapter was made for ${baseModel}`;
    throw new LowrankError(error.code, `${file}: ${error.message}${made}`, { cause: error });
  }
}

/** Gives a layer whose adapters have a form of their own one of PEFT's form, to be filled. */
function asPlain(layer: AnyLoRALayer, name: string): void {
  const adapter = layer.adapters.get(name);
  if (adapter === undefined) return;
  for (const [part, tensor] of partsOf(adapter)) {
    const shape = layer.shapeOnDisk(part, adapter.r);
    if (tensor.shape.join() !== shape.join())
      layer.replacePart(name, part, zeros(shape, { device: tensor.device }));
  }
}
