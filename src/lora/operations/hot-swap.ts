/** Replaces the values of a loaded adapter by another adapter's. */
import { checkKnownOptions } from "../../arguments/check.js";
import { checkModule } from "../../nn/children.js";
import { Embedding } from "../../nn/embedding.js";
import type { Tensor } from "../../tensor/tensor.js";
import { checkAdapterName } from "../options/adapter-name.js";
import { checkReading, checkPath, readAdapter, type ReadOptions } from "../formats/convert.js";
import { disposeFile, PREFIX, type AdapterFile } from "../formats/adapter-file.js";
import { readTemplates, setTemplates } from "../adapter/chat-templates.js";
import { findTrainedBiases } from "../adapter/mark.js";
import { convertToOwnForm, isOwnForm } from "../layers/own-form.js";
import { compilePatterns } from "../options/patterns.js";
import { computeScaling } from "../layers/layer.js";
import { findAdapter } from "../adapter/registry.js";
import { checkBases, fill, fitTensors } from "../formats/state.js";
import type { Targetable } from "../options/targets.js";
import { describeRanks } from "../options/exact.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { createRefusal } from "../../refusals/refusal.js";

/**
 * Reads an adapter into the existing tensors of the adapter `name`. Nothing is allocated, and references to the tensors
 * stay valid. The layers must be the same; a smaller rank is padded with zeros. The adapter of directly constructed layers
 * is "default". Source: PEFT's hotswap_adapter.
 *
 * Throws `ERR_UNKNOWN_ADAPTER`, `ERR_UNMATCHED_KEY`, `ERR_SHAPE_MISMATCH` (a larger rank), `ERR_NOT_FINITE`, `ERR_OPTION`
 * (merged, or not expressible in the layer's form); nothing is changed then.
 */
export async function hotSwap(
  model: Targetable,
  path: string,
  given: ReadOptions & { name?: string | undefined } = {},
): Promise<void> {
  checkModule("hotSwap", "model", model);
  checkPath("hotSwap", "path", path);
  const { name = "default", ...reading } = checkKnownOptions("hotSwap", given, [
    "name",
    "loraAlpha",
    "enableLora",
    "prefix",
  ]);
  checkAdapterName("hotSwap", "name", name);
  checkReading("hotSwap", reading);
  findAdapter(model, name);
  const read = await readAdapter(path, name, model, reading);
  const created: Tensor[] = [];
  try {
    const templates = readTemplates(model, read.folder);
    await checkBases(model, read);
    const fitting = await convertToForm(model, name, read, created);
    const { layers, note } = findAdapter(model, name);
    for (const [layerPath, layer] of layers) {
      if (layer.merged && layer.active.some((active) => active.name === name))
        throw createRefusal(ADAPTER_REFUSALS.swapMerged, "hotSwap", `"${name}" into ${layerPath}`);
      if (layer.findAdapter(name).start !== undefined)
        throw createRefusal(ADAPTER_REFUSALS.swapMoved, "hotSwap", `"${name}" at ${layerPath}`);
    }
    const {
      r = 8,
      loraAlpha = 8,
      useRslora = false,
      loraDropout = 0,
      rankPattern = {},
      alphaPattern = {},
    } = read.options;
    const [rankOf, alphaOf] = [
      compilePatterns(rankPattern, "rankPattern"),
      compilePatterns(alphaPattern, "alphaPattern"),
    ];
    // Biases trained in place belong to directly constructed layers.
    const inPlace = (read.options.bias ?? "none") === "none" ? "none" : findTrainedBiases(model);
    fill(fitTensors(model, name, fitting, { padded: true, inPlace }));
    for (const [layerPath, layer] of layers) {
      const adapter = layer.findAdapter(name);
      const scaling = computeScaling(rankOf(layerPath) ?? r, alphaOf(layerPath) ?? loraAlpha, useRslora);
      // The tensors keep their rank, so alpha is adjusted to give the file's scaling.
      Object.assign(adapter, { scaling, loraAlpha: scaling * adapter.r, useRslora: false });
      if (!(layer instanceof Embedding)) Object.assign(adapter, { loraDropout });
    }
    if (note === undefined) return;
    setTemplates(model, name, templates);
    const adapters = new Map([...layers].map(([layerPath, layer]) => [layerPath, layer.findAdapter(name)]));
    Object.assign(note.options, { loraDropout, useRslora: false, ...describeRanks(adapters) });
  } finally {
    for (const tensor of created) tensor.dispose();
    disposeFile(read);
  }
}

/** Converts a file's factors to the compact form of layers that use one. Appends new tensors to `created`. */
async function convertToForm(
  model: Targetable,
  name: string,
  read: AdapterFile,
  created: Tensor[],
): Promise<AdapterFile> {
  const tensors = { ...read.tensors };
  for (const [path, layer] of findAdapter(model, name).layers) {
    const adapter = layer.findAdapter(name);
    if (!isOwnForm(layer, adapter)) continue;
    const [keyA, keyB] = (["A", "B"] as const).map(
      (part) => `${PREFIX}${path}.${layer.nameOnDisk(part)}`,
    ) as [string, string];
    const [loraA, loraB] = [tensors[keyA], tensors[keyB]];
    if (loraA === undefined || loraB === undefined) continue;
    const compact = await convertToOwnForm(layer, adapter, { loraA, loraB });
    if (compact === undefined)
      throw createRefusal(ADAPTER_REFUSALS.swapForm, `hotSwap: ${read.file}`, `${path} of "${name}"`);
    created.push(compact.loraA, compact.loraB);
    Object.assign(tensors, { [keyA]: compact.loraA, [keyB]: compact.loraB });
  }
  return { ...read, tensors };
}
