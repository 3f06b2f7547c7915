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
import { halfToEven } from "./eva-ranks.js";
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
  if (isOnMeta(layers)) return metaStarts(model, layers, options);
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
function metaStarts(model: Targetable, layers: ReadonlyMap<string, Module>, options: AdapterOptions): Starts {
  const { initLoraWeights: init } = options;
  if (init === "eva") return withRanks(model, layers, options, largestRanks(layers, options));
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

/** The layers that EVA starts, by path. Throws `ERR_OPTION` where there are none. */
function evaLayers(layers: ReadonlyMap<string, Module>, options: AdapterOptions): Map<string, StartOf> {
  const dense = new Map([...layers].filter((entry): entry is [string, Linear] => isDense(entry[1])));
  if (dense.size === 0) throw refused(ADAPTER_REFUSALS.evaWithoutLinears, "inject");
  return new Map(linears(dense, options).map((of) => [of.path, of]));
}

async function evaStarts(
  model: Targetable,
  layers: ReadonlyMap<string, Module>,
  options: AdapterOptions,
): Promise<Starts> {
  const { evaData, evaConfig } = options;
  if (evaData === undefined) throw refused(ADAPTER_REFUSALS.evaWithoutData, "inject");
  const found = await eva(model, evaLayers(layers, options), evaData, evaConfig);
  return withRanks(model, layers, options, found);
}

/**
 * Which ranks EVA takes, only the values say: here no fewer than hold the most. Layers with the most inputs and outputs
 * have as much as any may have, until nothing is left of the whole; and none is left alone, since what backward reads of a
 * layer grows with its adapter.
 */
function largestRanks(
  layers: ReadonlyMap<string, Module>,
  options: AdapterOptions,
): Map<string, { rank: number }> {
  const { rho } = { ...EVA_DEFAULTS, ...options.evaConfig };
  const asked = [...evaLayers(layers, options).values()];
  // A layer whose inputs are another's has that layer's components.
  const most = Math.max(...asked.map(({ r }) => halfToEven(r * rho)));
  let left = asked.reduce((sum, { r }) => sum + r, 0);
  const width = ({ layer }: StartOf): number => layer.inFeatures + layer.outFeatures;
  const ranks = new Map<string, { rank: number }>();
  for (const { path, layer } of asked.toSorted((a, b) => width(b) - width(a))) {
    const rank = Math.min(left, most, layer.inFeatures);
    ranks.set(path, { rank: Math.max(rank, 1) });
    left -= rank;
  }
  return ranks;
}

/** Options by which layers have the ranks that were found, and are left alone where that is 0. */
function withRanks(
  model: Targetable,
  layers: ReadonlyMap<string, Module>,
  options: AdapterOptions,
  found: ReadonlyMap<string, { rank: number; loraA?: Float32Array | undefined }>,
): Starts {
  const { evaConfig, r, loraAlpha } = options;
  const adjust = evaConfig?.adjustScalingFactors ?? EVA_DEFAULTS.adjustScalingFactors;
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
    if (start?.loraA !== undefined) byPath.set(path, { loraA: start.loraA, movesBase: false });
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
