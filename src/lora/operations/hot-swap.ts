/** Another adapter's values in the place of one that is loaded. */
import { options } from "../../argument.js";
import { moduleOf } from "../../nn/children.js";
import { Embedding } from "../../nn/embedding.js";
import type { Tensor } from "../../tensor.js";
import { adapterName } from "../options/adapter-name.js";
import { checkReading, fileName, readAdapter, type ReadOptions } from "../formats/convert.js";
import { disposeFile, PREFIX, type AdapterFile } from "../formats/adapter-file.js";
import { readTemplates, setTemplates } from "../adapter/chat-templates.js";
import { trainedBiases } from "../adapter/mark.js";
import { asOwnForm, isOwnForm } from "../layers/own-form.js";
import { patternReader } from "../options/patterns.js";
import { scalingOf } from "../layers/layer.js";
import { adapterOf } from "../adapter/registry.js";
import { checkBases, fill, fitted } from "../formats/state.js";
import type { Targetable } from "../options/targets.js";
import { ranksAndAlphas } from "../options/exact.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { refused } from "../../refusals/refusal.js";

/**
 * Reads an adapter over the one called `name`: its tensors keep their storage, so nothing is
 * allocated, and what holds them goes on with the new values. Layers must be the same; a smaller
 * rank is filled up with zeros. Layers made by hand are the adapter "default". Source: PEFT's hotswap_adapter.
 *
 * Throws `ERR_UNKNOWN_ADAPTER`, `ERR_UNMATCHED_KEY`, `ERR_SHAPE_MISMATCH` (a larger rank),
 * `ERR_NOT_FINITE`, `ERR_OPTION` (merged, or of a form that the layer does not have); nothing is changed then.
 */
export async function hotSwap(
  model: Targetable,
  path: string,
  given: ReadOptions & { name?: string | undefined } = {},
): Promise<void> {
  moduleOf("hotSwap", "model", model);
  fileName("hotSwap", "path", path);
  const { name = "default", ...reading } = options("hotSwap", given, [
    "name",
    "loraAlpha",
    "enableLora",
    "prefix",
  ]);
  adapterName("hotSwap", "name", name);
  checkReading("hotSwap", reading);
  adapterOf(model, name);
  const read = await readAdapter(path, name, model, reading);
  const made: Tensor[] = [];
  try {
    const templates = readTemplates(model, read.folder);
    await checkBases(model, read);
    const fitting = await inOwnForm(model, name, read, made);
    const { layers, note } = adapterOf(model, name);
    for (const [at, layer] of layers) {
      if (layer.merged && layer.active.some((one) => one.name === name))
        throw refused(ADAPTER_REFUSALS.swapMerged, "hotSwap", `"${name}" into ${at}`);
      if (layer.adapterOf(name).start !== undefined)
        throw refused(ADAPTER_REFUSALS.swapMoved, "hotSwap", `"${name}" at ${at}`);
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
      patternReader(rankPattern, "rankPattern"),
      patternReader(alphaPattern, "alphaPattern"),
    ];
    // Biases that were trained in place are a part of what was made by hand.
    const inPlace = (read.options.bias ?? "none") === "none" ? "none" : trainedBiases(model);
    fill(fitted(model, name, fitting, { padded: true, inPlace }));
    for (const [at, layer] of layers) {
      const adapter = layer.adapterOf(name);
      const scaling = scalingOf(rankOf(at) ?? r, alphaOf(at) ?? loraAlpha, useRslora);
      // The rank stays that of the tensors, and alpha is what gives the new scaling with it.
      Object.assign(adapter, { scaling, loraAlpha: scaling * adapter.r, useRslora: false });
      if (!(layer instanceof Embedding)) Object.assign(adapter, { loraDropout });
    }
    if (note === undefined) return;
    setTemplates(model, name, templates);
    const held = new Map([...layers].map(([at, layer]) => [at, layer.adapterOf(name)]));
    Object.assign(note.options, { loraDropout, useRslora: false, ...ranksAndAlphas(held) });
  } finally {
    for (const one of made) one.dispose();
    disposeFile(read);
  }
}

/** A file with factors in the form in which the layers hold theirs; `made` is given what is new. */
async function inOwnForm(
  model: Targetable,
  name: string,
  read: AdapterFile,
  made: Tensor[],
): Promise<AdapterFile> {
  const tensors = { ...read.tensors };
  for (const [path, layer] of adapterOf(model, name).layers) {
    const adapter = layer.adapterOf(name);
    if (!isOwnForm(layer, adapter)) continue;
    const [keyA, keyB] = (["A", "B"] as const).map(
      (part) => `${PREFIX}${path}.${layer.nameOnDisk(part)}`,
    ) as [string, string];
    const [loraA, loraB] = [tensors[keyA], tensors[keyB]];
    if (loraA === undefined || loraB === undefined) continue;
    const own = await asOwnForm(layer, adapter, { loraA, loraB });
    if (own === undefined)
      throw refused(ADAPTER_REFUSALS.swapForm, `hotSwap: ${read.file}`, `${path} of "${name}"`);
    made.push(own.loraA, own.loraB);
    Object.assign(tensors, { [keyA]: own.loraA, [keyB]: own.loraB });
  }
  return { ...read, tensors };
}
