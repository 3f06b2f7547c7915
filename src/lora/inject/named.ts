/** Checks that every name in the options of `inject` matches something in the model. */
import { LowrankError } from "../../errors.js";
import type { Module } from "../../nn/module.js";
import { optionName } from "../../arguments/option-name.js";
import { didYouMean } from "../../arguments/suggest.js";
import { isHead, type AdapterOptions, type InjectOptions } from "../options/options.js";
import { compilePatterns } from "../options/patterns.js";
import {
  listEndings,
  isAdaptable,
  compileTargets,
  createNumberReader,
  type Targets,
  type Targetable,
} from "../options/targets.js";

/** Returns endings of paths with as many parts as `name`, as suggestions. */
export function listAlike(name: string, paths: readonly string[]): Set<string> {
  const parts = name.split(".").length;
  return new Set(paths.flatMap((path) => listEndings(path)[parts - 1] ?? []));
}

/** Lists up to 20 last parts of paths, for an error. */
export function listLastNames(paths: readonly string[]): string {
  const names = [...new Set(paths.map((path) => path.split(".").at(-1) as string))].sort();
  const rest = names.length > 20 ? `, and ${names.length - 20} more` : "";
  return names.slice(0, 20).join(", ") + rest || "none";
}

function refuse(option: string, name: string, what: string, paths: readonly string[]): never {
  const suggestion = didYouMean(name, listAlike(name, paths));
  throw new LowrankError(
    "ERR_NO_TARGETS",
    `${optionName(option)}: "${name}" ${what}${suggestion}; there are: ${listLastNames(paths)}`,
  );
}

/**
 * Throws `ERR_NO_TARGETS`, with a suggestion, for a name or a pattern in `given` that matches nothing. Default targets from
 * PEFT's table and the heads that PEFT adds are not checked, since a model family may lack some. Names in an adapter's
 * file are not checked either; its keys are.
 *
 * `adapted` are the paths of the layers that the options select.
 */
export function checkNames(
  model: Targetable,
  given: InjectOptions,
  { options, adapted }: { options: AdapterOptions; adapted: readonly string[] },
): void {
  const modules = [...model.namedModules()].filter(([path]) => path !== "");
  const paths = modules.map(([path]) => path);
  const layers = modules.filter(([, module]) => isAdaptable(module)).map(([path]) => path);
  const { targetModules, excludeModules, modulesToSave } = given;
  if (Array.isArray(targetModules)) checkTargets("targetModules", targetModules, layers);
  if (excludeModules !== undefined && excludeModules !== null)
    checkTargets("excludeModules", excludeModules, layers);
  for (const name of modulesToSave ?? []) {
    // PEFT lists several names of heads; a classifier has only one of them.
    if (isHead(name) || paths.some((path) => path.endsWith(name))) continue;
    refuse("modulesToSave", name, "matches no module", paths);
  }
  checkLayerNumbers(options, layers);
  for (const option of ["rankPattern", "alphaPattern"] as const) {
    for (const [key, value] of Object.entries(options[option])) {
      const read = compilePatterns({ [key]: value }, option);
      if (!adapted.some((path) => read(path) !== undefined))
        refuse(option, key, "matches no adapted layer", adapted);
    }
  }
}

function checkTargets(option: string, targets: Targets, layers: readonly string[]): void {
  // A string is one pattern: a regular expression or all-linear.
  for (const target of typeof targets === "string" ? [targets] : targets) {
    const matches = compileTargets(typeof targets === "string" ? targets : [target], option);
    if (!layers.some(matches)) refuse(option, target, "matches no layer that can be adapted", layers);
  }
}

function checkLayerNumbers(
  { layersToTransform, layersPattern }: AdapterOptions,
  layers: readonly string[],
): void {
  if (layersToTransform === undefined) return;
  const lists = typeof layersPattern === "string" ? [layersPattern] : (layersPattern ?? []);
  for (const name of lists) {
    const number = createNumberReader(name);
    if (!layers.some((path) => number(path) !== undefined))
      refuse("layersPattern", name, "matches no list of layers", findModuleLists(layers));
  }
  const number = createNumberReader(lists);
  const numbers = new Set(layers.flatMap((path) => number(path) ?? []));
  for (const number of typeof layersToTransform === "number" ? [layersToTransform] : layersToTransform) {
    if (numbers.has(number)) continue;
    const available =
      numbers.size === 0 ? "no numbered layers" : `layers ${Math.min(...numbers)} to ${Math.max(...numbers)}`;
    throw new LowrankError(
      "ERR_NO_TARGETS",
      `${optionName("layersToTransform")}: there is no layer ${number}; the model has ${available}`,
    );
  }
}

/** Returns the names of the lists of numbered modules. */
function findModuleLists(layers: readonly string[]): string[] {
  return [
    ...new Set(
      layers.flatMap((path) => [...path.matchAll(/([^.]+)\.\d+\./g)].map(([, list]) => list as string)),
    ),
  ];
}

/** @internal Throws for a name of a module or of a layer with tokens that matches nothing. */
export function refuseUnmatched(option: string, name: string, model: Module): never {
  const paths = [...model.namedModules()].map(([path]) => path).filter(Boolean);
  return refuse(option, name, "matches no module", paths);
}
