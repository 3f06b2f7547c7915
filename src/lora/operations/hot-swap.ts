/** Another adapter's values in the place of one that is loaded. */
import { LowrankError } from "../../errors.js";
import type { Adapter } from "../adapter.js";
import { readAdapter, type ReadOptions } from "../convert.js";
import { disposeFile } from "../formats/adapter-file.js";
import { patternReader } from "../patterns.js";
import { scalingOf } from "../layer.js";
import { adapterOf, loraLayers } from "../registry.js";
import { fill } from "../state.js";
import type { Targetable } from "../targets.js";
import { ranksAndAlphas } from "../exact.js";

/**
 * Reads an adapter over the one called `name`: its tensors keep their storage, so nothing is
 * allocated, and what holds them goes on with the new values. Layers must be the same; a smaller
 * rank is filled up with zeros. Source: PEFT's hotswap_adapter.
 *
 * Throws `ERR_UNKNOWN_ADAPTER`, `ERR_UNMATCHED_KEY`, `ERR_SHAPE_MISMATCH` (a larger rank),
 * `ERR_NOT_FINITE`, `ERR_OPTION` (merged); nothing is changed then.
 */
export async function hotSwap(
  model: Targetable,
  path: string,
  { name = "default", ...options }: ReadOptions & { name?: string } = {},
): Promise<void> {
  adapterOf(model, name);
  const read = await readAdapter(path, name, model, options);
  try {
    const own = adapterOf(model, name);
    const layers = [...loraLayers(model)].filter(([, layer]) => layer.adapters.has(name));
    const merged = layers.find(([, layer]) => layer.merged && layer.active.some((one) => one.name === name));
    if (merged !== undefined)
      throw new LowrankError("ERR_OPTION", `hotSwap: "${name}" is merged into ${merged[0]}; unmerge first`);
    const moved = layers.find(([, layer]) => layer.adapters.get(name)?.start !== undefined);
    if (moved !== undefined)
      throw new LowrankError(
        "ERR_OPTION",
        `hotSwap: "${name}" started from the weight of ${moved[0]}, which no other adapter did; load it as another one`,
      );
    await fill(model, name, read, { padded: true });
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
    const now = new Map<string, Adapter>();
    for (const [at, layer] of layers) {
      const adapter = layer.adapters.get(name) as Adapter;
      const scaling = scalingOf(rankOf(at) ?? r, alphaOf(at) ?? loraAlpha, useRslora);
      // The rank stays that of the tensors, and alpha is what gives the new scaling with it.
      now.set(
        at,
        Object.assign(adapter, { scaling, loraAlpha: scaling * adapter.r, useRslora: false, loraDropout }),
      );
    }
    Object.assign(own.options, { loraDropout, useRslora: false, ...ranksAndAlphas(now) });
  } finally {
    disposeFile(read);
  }
}
