/** Computes slow initialisations before a model is changed. */
import { mapOverCores } from "../../tensor/linalg.js";
import { Embedding } from "../../nn/embedding.js";
import { Linear } from "../../nn/linear.js";
import type { Module } from "../../nn/module.js";
import type { Tensor } from "../../tensor/tensor.js";
import { listExceptions } from "../options/exact.js";
import { LoRALayer, computeScaling } from "../layers/layer.js";
import { QUANTISED_REFUSALS } from "../../refusals/quantised.js";
import { refuseQuantised } from "../layers/quantised.js";
import type { AdapterOptions } from "../options/options.js";
import { EVA_DEFAULTS } from "../options/eva.js";
import { compilePatterns } from "../options/patterns.js";
import { findTargets, type Targetable } from "../options/targets.js";
import { computeEva } from "./eva.js";
import { roundHalfToEven } from "./eva-ranks.js";
import { computeOlora, drawOrthogonal, computePissa, type Factors, type StartOf } from "./factored.js";
import { movesBase, parseRounds } from "../options/init-weights.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { createRefusal } from "../../refusals/refusal.js";

/** The initial values of a layer's adapter. */
export interface Start extends Partial<Factors> {
  /** Whether the initial product is subtracted from the weight. */
  movesBase: boolean;
}

/** Initial values by path, and the resulting options: EVA chooses ranks and layers. */
export interface Starts {
  options: AdapterOptions;
  byPath: ReadonlyMap<string, Start>;
}

/** Computes the initial values for the layers to be adapted. Changes nothing. */
export async function computeStarts(
  model: Targetable,
  layers: ReadonlyMap<string, Module>,
  options: AdapterOptions,
): Promise<Starts> {
  const { initLoraWeights: init } = options;
  if (typeof init !== "string" || init === "gaussian") return { options, byPath: new Map() };
  if (isOnMeta(layers)) return createMetaStarts(model, layers, options);
  if (init === "eva") return computeEvaStarts(model, layers, options);
  const make = (start: StartOf): Promise<Factors> => {
    if (init === "orthogonal") return drawOrthogonal(start);
    return init === "olora" ? computeOlora(start) : computePissa(start, parseRounds(init));
  };
  const found = await mapOverCores(listLinears(layers, options), async (start) => {
    return [start.path, { ...(await make(start)), movesBase: movesBase(init) }] as const;
  });
  return { options, byPath: new Map(found) };
}

function isOnMeta(layers: ReadonlyMap<string, Module>): boolean {
  const [layer] = layers.values();
  const weight = (layer as { weight?: Tensor } | undefined)?.weight;
  return weight?.device.startsWith("meta") === true;
}

/** Initial values on a meta device, which holds none: only shapes and memory matter. */
function createMetaStarts(
  model: Targetable,
  layers: ReadonlyMap<string, Module>,
  options: AdapterOptions,
): Starts {
  const { initLoraWeights: init } = options;
  if (init === "eva") return applyRanks(model, layers, options, predictRanks(layers, options));
  const start = { movesBase: movesBase(init) };
  return { options, byPath: new Map(listLinears(layers, options).map(({ path }) => [path, start])) };
}

/** Returns the dense layers with rank and scaling. Embeddings are skipped: as in PEFT, they keep their usual start. */
function listLinears(layers: ReadonlyMap<string, Module>, options: AdapterOptions): StartOf[] {
  const rankOf = compilePatterns(options.rankPattern, "rankPattern");
  const alphaOf = compilePatterns(options.alphaPattern, "alphaPattern");
  return [...layers].flatMap(([path, layer]) => {
    if (layer instanceof Embedding) return [];
    if (!isDense(layer))
      throw createRefusal(
        ADAPTER_REFUSALS.startBeyondLinear,
        "initLoraWeights",
        `${String(options.initLoraWeights)}, and ${path} is a ${layer.constructor.name}`,
      );
    const r = rankOf(path) ?? options.r;
    const scaling = computeScaling(r, alphaOf(path) ?? options.loraAlpha, options.useRslora);
    const weight = layer instanceof LoRALayer ? layer.baseWeight : layer.weight;
    if (movesBase(options.initLoraWeights)) {
      refuseQuantised(weight, QUANTISED_REFUSALS.start, path);
    }
    return [{ path, layer, weight, r, scaling }];
  });
}

/** Whether A is [r, in] and B [out, r]; not so if the outputs are split into slices. */
function isDense(layer: Module): layer is Linear {
  return layer instanceof Linear && !("enableLora" in layer);
}

/** Returns the layers that EVA initialises, by path. Throws `ERR_OPTION` if there are none. */
function listEvaLayers(layers: ReadonlyMap<string, Module>, options: AdapterOptions): Map<string, StartOf> {
  const dense = new Map([...layers].filter((entry): entry is [string, Linear] => isDense(entry[1])));
  if (dense.size === 0) throw createRefusal(ADAPTER_REFUSALS.evaWithoutLinears, "inject");
  return new Map(listLinears(dense, options).map((start) => [start.path, start]));
}

async function computeEvaStarts(
  model: Targetable,
  layers: ReadonlyMap<string, Module>,
  options: AdapterOptions,
): Promise<Starts> {
  const { evaData, evaConfig } = options;
  if (evaData === undefined) throw createRefusal(ADAPTER_REFUSALS.evaWithoutData, "inject");
  const found = await computeEva(model, listEvaLayers(layers, options), evaData, evaConfig);
  return applyRanks(model, layers, options, found);
}

/**
 * Returns an upper bound of EVA's ranks in memory, since the actual ranks depend on values that a meta device lacks. The
 * widest layers get the largest possible rank until the total is used up. Every other layer gets rank 1 rather than 0,
 * since the memory that backward needs for a layer grows with its adapter.
 */
function predictRanks(
  layers: ReadonlyMap<string, Module>,
  options: AdapterOptions,
): Map<string, { rank: number }> {
  const { rho } = { ...EVA_DEFAULTS, ...options.evaConfig };
  const requested = [...listEvaLayers(layers, options).values()];
  // A layer that shares another layer's inputs has that layer's number of components.
  const most = Math.max(...requested.map(({ r }) => roundHalfToEven(r * rho)));
  let left = requested.reduce((sum, { r }) => sum + r, 0);
  const width = ({ layer }: StartOf): number => layer.inFeatures + layer.outFeatures;
  const ranks = new Map<string, { rank: number }>();
  for (const { path, layer } of requested.toSorted((a, b) => width(b) - width(a))) {
    const rank = Math.min(left, most, layer.inFeatures);
    ranks.set(path, { rank: Math.max(rank, 1) });
    left -= rank;
  }
  return ranks;
}

/** Returns options with the chosen ranks, in which layers of rank 0 are not targets. */
function applyRanks(
  model: Targetable,
  layers: ReadonlyMap<string, Module>,
  options: AdapterOptions,
  found: ReadonlyMap<string, { rank: number; loraA?: Float32Array | undefined }>,
): Starts {
  const { evaConfig, r, loraAlpha } = options;
  const adjust = evaConfig?.adjustScalingFactors ?? EVA_DEFAULTS.adjustScalingFactors;
  const byPath = new Map<string, Start>();
  const [ranks, alphas]: [[string, number][], [string, number][]] = [[], []];
  const rankOf = compilePatterns(options.rankPattern, "rankPattern");
  const alphaOf = compilePatterns(options.alphaPattern, "alphaPattern");
  const retained: string[] = [];
  for (const path of layers.keys()) {
    const start = found.get(path);
    const layerRank = rankOf(path) ?? r;
    const rank = start?.rank ?? layerRank;
    // A layer of rank 0 gets no adapter.
    if (rank === 0) continue;
    retained.push(path);
    if (start?.loraA !== undefined) byPath.set(path, { loraA: start.loraA, movesBase: false });
    const alpha = (alphaOf(path) ?? loraAlpha) * (adjust && rank !== layerRank ? rank / layerRank : 1);
    ranks.push([path, rank]);
    alphas.push([path, alpha]);
  }
  const { layersToTransform: _layers, layersPattern: _lists, ...rest } = options;
  const chosen = {
    ...rest,
    targetModules: retained,
    rankPattern: Object.fromEntries(listExceptions(ranks, r)),
    alphaPattern: Object.fromEntries(listExceptions(alphas, loraAlpha)),
  };
  if (findTargets(model, chosen).size !== retained.length)
    throw createRefusal(ADAPTER_REFUSALS.evaEnding, "inject");
  return { options: chosen, byPath };
}
