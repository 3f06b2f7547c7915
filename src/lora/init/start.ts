/** What adapters start from, where it takes time: made before a model is changed. */
import { overCores } from "../../linalg.js";
import { Embedding } from "../../nn/embedding.js";
import { Linear } from "../../nn/linear.js";
import type { Module } from "../../nn/module.js";
import type { Tensor } from "../../tensor.js";
import { exceptions } from "../options/exact.js";
import { LoRALayer, scalingOf } from "../layers/layer.js";
import { QUANTISED_REFUSALS } from "../../refusals/quantised.js";
import { refuseQuantised } from "../layers/quantised.js";
import type { AdapterOptions } from "../options/options.js";
import { EVA_DEFAULTS } from "../options/eva.js";
import { patternReader } from "../options/patterns.js";
import { targeted, type Targetable } from "../options/targets.js";
import { eva } from "./eva.js";
import { olora, orthogonal, pissa, type Factors, type StartOf } from "./factored.js";
import { movesBase, roundsOf } from "../options/init-weights.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { refused } from "../../refusals/refusal.js";

/** How a layer's adapter starts. */
export interface Start extends Partial<Factors> {
  /** Whether its product is taken out of the weight. */
  movesBase: boolean;
}

/** Starts by path, and the options that go with them: EVA chooses ranks, and layers. */
export interface Starts {
  options: AdapterOptions;
  byPath: ReadonlyMap<string, Start>;
}

/** Computes the starts. `layers` are those that will be adapted. Nothing is changed. */
export async function startsOf(
  model: Targetable,
  layers: ReadonlyMap<string, Module>,
  options: AdapterOptions,
): Promise<Starts> {
  const { initLoraWeights: init } = options;
  if (typeof init !== "string" || init === "gaussian") return { options, byPath: new Map() };
  if (isOnMeta(layers)) return metaStarts(layers, options);
  if (init === "eva") return evaStarts(model, layers, options);
  const make = (of: StartOf): Promise<Factors> => {
    if (init === "orthogonal") return orthogonal(of);
    return init === "olora" ? olora(of) : pissa(of, roundsOf(init));
  };
  const found = await overCores(linears(layers, options), async (of) => {
    return [of.path, { ...(await make(of)), movesBase: movesBase(init) }] as const;
  });
  return { options, byPath: new Map(found) };
}

function isOnMeta(layers: ReadonlyMap<string, Module>): boolean {
  const [layer] = layers.values();
  const weight = (layer as { weight?: Tensor } | undefined)?.weight;
  return weight?.device.startsWith("meta") === true;
}

/** A meta device holds no values: what is made of them is left as it is, and takes the same memory. */
function metaStarts(layers: ReadonlyMap<string, Module>, options: AdapterOptions): Starts {
  const { initLoraWeights: init } = options;
  // Which ranks EVA takes, only the values say.
  if (init === "eva") return { options, byPath: new Map() };
  const start = { movesBase: movesBase(init) };
  return { options, byPath: new Map(linears(layers, options).map(({ path }) => [path, start])) };
}

/** Ranks and scalings of dense layers. An embedding starts as always, as PEFT's does. */
function linears(layers: ReadonlyMap<string, Module>, options: AdapterOptions): StartOf[] {
  const rankOf = patternReader(options.rankPattern, "rankPattern");
  const alphaOf = patternReader(options.alphaPattern, "alphaPattern");
  return [...layers].flatMap(([path, layer]) => {
    if (layer instanceof Embedding) return [];
    if (!isDense(layer))
      throw refused(
        ADAPTER_REFUSALS.startBeyondLinear,
        "initLoraWeights",
        `${String(options.initLoraWeights)}, and ${path} is a ${layer.constructor.name}`,
      );
    const r = rankOf(path) ?? options.r;
    const scaling = scalingOf(r, alphaOf(path) ?? options.loraAlpha, options.useRslora);
    const weight = layer instanceof LoRALayer ? layer.baseWeight : layer.weight;
    if (movesBase(options.initLoraWeights)) {
      refuseQuantised(weight, QUANTISED_REFUSALS.start, path);
    }
    return [{ path, layer, weight, r, scaling }];
  });
}

/** Whether A is [r, in] and B [out, r]: not so where outputs are in groups. */
function isDense(layer: Module): layer is Linear {
  return layer instanceof Linear && !("enableLora" in layer);
}

async function evaStarts(
  model: Targetable,
  layers: ReadonlyMap<string, Module>,
  options: AdapterOptions,
): Promise<Starts> {
  const { evaData, evaConfig, r, loraAlpha } = options;
  if (evaData === undefined) throw refused(ADAPTER_REFUSALS.evaWithoutData, "inject");
  const adjust = evaConfig?.adjustScalingFactors ?? EVA_DEFAULTS.adjustScalingFactors;
  const dense = new Map([...layers].filter((entry): entry is [string, Linear] => isDense(entry[1])));
  if (dense.size === 0) throw refused(ADAPTER_REFUSALS.evaWithoutLinears, "inject");
  const asked = new Map(linears(dense, options).map((of) => [of.path, of]));
  const found = await eva(model, asked, evaData, evaConfig);
  const byPath = new Map<string, Start>();
  const [ranks, alphas]: [[string, number][], [string, number][]] = [[], []];
  const rankOf = patternReader(options.rankPattern, "rankPattern");
  const alphaOf = patternReader(options.alphaPattern, "alphaPattern");
  const kept: string[] = [];
  for (const path of layers.keys()) {
    const start = found.get(path);
    const own = rankOf(path) ?? r;
    const rank = start?.rank ?? own;
    // A layer that explains nothing is left alone.
    if (rank === 0) continue;
    kept.push(path);
    if (start !== undefined) byPath.set(path, { loraA: start.loraA, movesBase: false });
    const alpha = (alphaOf(path) ?? loraAlpha) * (adjust && rank !== own ? rank / own : 1);
    ranks.push([path, rank]);
    alphas.push([path, alpha]);
  }
  const { layersToTransform: _layers, layersPattern: _lists, ...rest } = options;
  const chosen = {
    ...rest,
    targetModules: kept,
    rankPattern: Object.fromEntries(exceptions(ranks, r)),
    alphaPattern: Object.fromEntries(exceptions(alphas, loraAlpha)),
  };
  if (targeted(model, chosen).size !== kept.length) throw refused(ADAPTER_REFUSALS.evaEnding, "inject");
  return { options: chosen, byPath };
}
