/** Describes a model's adapter in the terms of `adapter_config.json`. */
import { LowrankError } from "../../errors.js";
import { Embedding } from "../../nn/embedding.js";
import type { Adapter } from "../layers/adapter.js";
import { matchExactly, describeRanks } from "../options/exact.js";
import { isWithin } from "../adapter/replacement.js";
import { findSavedModules } from "../inject/modules-to-save.js";
import { findTrainedBiases } from "../adapter/mark.js";
import { completeOptions, type AdapterOptions } from "../options/options.js";
import { compilePatterns } from "../options/patterns.js";
import type { ModelAdapter } from "../adapter/registry.js";
import { findTargets, type Targetable, type Targets } from "../options/targets.js";

/** The options and targets of an adapter. */
export interface Description {
  options: AdapterOptions;
  /** Targets in PEFT's form. */
  targets: Targets;
}

/**
 * Returns options and targets that select exactly the layers of an adapter, with their ranks and alphas. They are the
 * ones given to `inject` if these still select the same layers, otherwise the layers' paths. `adapters` maps paths to the
 * adapters to be written.
 *
 * Throws `ERR_OPTION` with the layer's path if layers differ in an option that PEFT has only once per adapter.
 */
export function describeAdapter(
  model: Targetable,
  { note, layers }: ModelAdapter,
  adapters: ReadonlyMap<string, Adapter>,
): Description {
  const common = findCommonOptions(
    adapters,
    new Set([...layers].flatMap(([p, l]) => (l instanceof Embedding ? [p] : []))),
  );
  const given = note?.options;
  const targets =
    note !== undefined && selectsExactly(model, note, [...adapters.keys()])
      ? note.targets
      : matchExactly(model, [...adapters.keys()], []);
  const base = given ?? completeOptions(model, { targetModules: targets });
  const options = {
    ...base,
    ...common,
    bias: base.bias === "none" ? findTrainedBiases(model) : base.bias,
    fanInFanOut: [...layers.values()].some((layer) => "fanInFanOut" in layer && layer.fanInFanOut === true),
  };
  if (targets !== note?.targets) {
    for (const key of ["excludeModules", "layersToTransform", "layersPattern"] as const) delete options[key];
  }
  const scaled = common.useRslora
    ? adapters
    : new Map([...adapters].map(([path, adapter]) => [path, rescaleAlpha(adapter)]));
  return {
    targets,
    options: matchesRanks(options, scaled) ? options : { ...options, ...describeRanks(scaled) },
  };
}

/** Returns the alpha that gives the same scaling as alpha / r, for layers that do not all use rank-stabilised scaling. */
function rescaleAlpha(adapter: Adapter): { r: number; loraAlpha: number } {
  const { r, loraAlpha, scaling, useRslora } = adapter;
  return { r, loraAlpha: useRslora ? scaling * r : loraAlpha };
}

/** Whether the targets select exactly the layers at `paths`. */
function selectsExactly(
  model: Targetable,
  { options, targets }: Description,
  paths: readonly string[],
): boolean {
  try {
    const saved = findSavedModules(model, options);
    const hit = [...findTargets(model, { ...options, targetModules: targets }).keys()];
    const adapted = hit.filter((path) => !isWithin(path, saved));
    return adapted.length === paths.length && paths.every((path) => adapted.includes(path));
  } catch (error) {
    // A layer or module may have been removed since.
    if (error instanceof LowrankError) return false;
    throw error;
  }
}

/** Whether the options give every layer its rank and alpha. */
function matchesRanks(
  { r, loraAlpha, rankPattern, alphaPattern }: AdapterOptions,
  adapters: ReadonlyMap<string, { r: number; loraAlpha: number }>,
): boolean {
  const rankOf = compilePatterns(rankPattern, "rankPattern");
  const alphaOf = compilePatterns(alphaPattern, "alphaPattern");
  return [...adapters].every(
    ([path, ranked]) => (rankOf(path) ?? r) === ranked.r && (alphaOf(path) ?? loraAlpha) === ranked.loraAlpha,
  );
}

/** Returns the options that PEFT has once for all layers. */
function findCommonOptions(
  adapters: ReadonlyMap<string, Adapter>,
  embeddings: ReadonlySet<string>,
): Pick<AdapterOptions, "loraDropout" | "useRslora" | "useDora" | "loraBias"> {
  const [useDora = false] = findCommonValue(adapters, "useDora", ({ magnitude }) => magnitude !== undefined);
  const [loraBias = false] = findCommonValue(
    adapters,
    "loraBias",
    ({ loraBias: bias }) => bias !== undefined,
  );
  // Embeddings have no dropout.
  const dropping = new Map([...adapters].filter(([path]) => !embeddings.has(path)));
  const [loraDropout = 0] = findCommonValue(dropping, "loraDropout", (adapter) => adapter.loraDropout);
  const useRslora =
    adapters.size > 0 && [...adapters.values()].every((adapter) => adapter.useRslora === true);
  return { loraDropout, useRslora, useDora, loraBias };
}

function findCommonValue<T>(
  adapters: ReadonlyMap<string, Adapter>,
  option: string,
  read: (adapter: Adapter) => T,
): T[] {
  const [first, ...rest] = adapters;
  if (first === undefined) return [];
  const value = read(first[1]);
  const other = rest.find(([, adapter]) => read(adapter) !== value);
  if (other !== undefined)
    throw new LowrankError(
      "ERR_OPTION",
      `PEFT has one ${option} for all layers, and ${first[0]} has ${String(value)} and ${other[0]} ${String(read(other[1]))}; loraStateDict gives the tensors as they are, for safetensors.save`,
    );
  return [value];
}
