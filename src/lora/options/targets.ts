/** Selects the modules that an adapter targets, by PEFT's rules. */
import { LowrankError } from "../../errors.js";
import { optionName } from "../../arguments/option-name.js";
import { didYouMean } from "../../arguments/suggest.js";
import { ConvNd } from "../../nn/conv.js";
import { Embedding } from "../../nn/embedding.js";
import { Linear } from "../../nn/linear.js";
import type { Module } from "../../nn/module.js";
import { MultiheadAttention } from "../../nn/multihead-attention.js";
import { PEFT_TARGETS } from "./peft-targets.js";
import { escapePath, compilePythonRegex } from "./python-regex.js";

/** A regular expression for full paths, `all-linear`, or `peft` for PEFT's targets by model family; or a list of names, each matching a path or the end of one. */
export type Targets = string | readonly string[];

/** A module that can be adapted: any module. The optional fields are used if present. */
export interface Targetable extends Module {
  /** `model_type` or `modelType` is the family to look up in PEFT's table of targets. */
  config?: object | undefined;
  /** The model's origin: `base_model_name_or_path` of a saved adapter. */
  source?: string | undefined;
  /** The model's commit on the hub: `revision` of a saved adapter, with which PEFT loads the base. */
  revision?: string | undefined;
  /** Returns the input embedding. */
  getInputEmbedding?(): Embedding;
  /** The path of the output head, which `all-linear` excludes. */
  outputHead?: string | undefined;
  /** The task by PEFT's name: CAUSAL_LM, SEQ_CLS, … */
  taskType?: string | undefined;
}

/** Returns PEFT's targets for a model's family; undefined for an unknown family. */
function findFamilyTargets(model: Targetable): Targets | undefined {
  const config = (model.config ?? {}) as { model_type?: unknown; modelType?: unknown };
  const family = config.model_type ?? config.modelType;
  return typeof family === "string" && Object.hasOwn(PEFT_TARGETS, family) ? PEFT_TARGETS[family] : undefined;
}

/** Returns the default targets of a model: PEFT's for its family, or all linear layers. */
export function chooseTargets(model: Targetable): Targets {
  return findFamilyTargets(model) ?? "all-linear";
}

/** Resolves "peft" to PEFT's targets for the model and returns other targets unchanged. Throws `ERR_NO_TARGETS`. */
export function resolveTargets(model: Targetable, targets: Targets): Targets {
  if (targets !== "peft") return targets;
  const found = findFamilyTargets(model);
  if (found !== undefined) return found;
  throw new LowrankError(
    "ERR_NO_TARGETS",
    `${optionName("targetModules")}: "peft" is PEFT's table by family, which has ${Object.keys(PEFT_TARGETS).join(", ")} and not this model's; name layers, or all-linear; there are: ${listCandidates(model).join(", ") || "none"}`,
  );
}

/** Returns the names of the layers that can be adapted. */
function listCandidates(model: Module): string[] {
  const paths = [...model.namedModules()].flatMap(([path, module]) =>
    path !== "" && isAdaptable(module) ? [path] : [],
  );
  return [...new Set(paths.map((path) => path.split(".").pop() as string))].sort();
}

/** Options that select layers of a model. */
export interface Targeting {
  targetModules: Targets;
  excludeModules?: Targets | undefined;
  layersToTransform?: number | readonly number[] | undefined;
  layersPattern?: string | readonly string[] | undefined;
  taskType?: string | undefined;
}

/** A layer that can be adapted. */
export type Adaptable = Linear | Embedding | ConvNd | MultiheadAttention;

/** Whether a module can be adapted. */
export function isAdaptable(module: Module | undefined): module is Adaptable {
  return (
    module instanceof Linear ||
    module instanceof Embedding ||
    module instanceof ConvNd ||
    module instanceof MultiheadAttention
  );
}

/**
 * Returns the targeted layers by path, sorted as in the model.
 * Throws `ERR_NO_TARGETS` with the candidates if there are none.
 */
export function findTargets(model: Targetable, targeting: Targeting): Map<string, Adaptable> {
  const { targetModules, excludeModules } = targeting;
  const wanted = createChooser(model, targeting);
  const unwanted =
    excludeModules === undefined ? () => false : compileTargets(excludeModules, "excludeModules");
  const found = new Map<string, Adaptable>();
  for (const [path, module] of model.namedModules()) {
    // The model itself has no parent in which it could be replaced.
    if (path === "" || !isAdaptable(module)) continue;
    // As in PEFT, an attention layer is adapted with its output projection.
    const chosen = wanted(path, module) || findAttention(path, found) !== undefined;
    if (chosen && !unwanted(path)) found.set(path, module);
  }
  if (found.size > 0) return found;
  const requested =
    typeof targetModules === "string" ? `"${targetModules}"` : `[${targetModules.join(", ")}]`;
  const narrowed = (["excludeModules", "layersToTransform"] as const).flatMap((option) =>
    targeting[option] === undefined ? [] : [`${optionName(option)} ${JSON.stringify(targeting[option])}`],
  );
  const candidates = listCandidates(model);
  const names = typeof targetModules === "string" ? [targetModules] : targetModules;
  const near = names.map((name) => didYouMean(name, [...candidates, "all-linear"])).find(Boolean) ?? "";
  throw new LowrankError(
    "ERR_NO_TARGETS",
    `${optionName("targetModules")}: ${requested}${narrowed.length > 0 ? ` with ${narrowed.join(" and ")}` : ""} matches no layer that can be adapted${near}; there are: ${candidates.join(", ") || "none"}${isAdaptable(model) ? "; the model is a layer itself, which only a module around it can replace: put it in an nn.Sequential, or use lora's layer of its kind" : ""}`,
  );
}

/** Returns the path of the attention layer among `layers` that has `path` as its output projection. */
export function findAttention(path: string, layers: ReadonlyMap<string, Module>): string | undefined {
  const attention = path.endsWith(OUT_PROJ) ? path.slice(0, -OUT_PROJ.length) : undefined;
  return attention !== undefined && layers.get(attention) instanceof MultiheadAttention
    ? attention
    : undefined;
}

const OUT_PROJ = ".out_proj";

/** Returns a predicate for the layers that `targetModules` and `layersToTransform` select, before exclusions. */
function createChooser(
  model: Targetable,
  { targetModules, layersToTransform, layersPattern, taskType }: Targeting,
): (path: string, module: Module) => boolean {
  if (isAllLinear(targetModules)) {
    const head = findHead(model, taskType);
    return (path, module) => module instanceof Linear && path !== head;
  }
  const wanted = compileTargets(targetModules, "targetModules");
  if (
    layersToTransform === undefined ||
    (typeof layersToTransform === "object" && layersToTransform.length === 0)
  )
    return wanted;
  const inLayer = createLayerFilter(layersToTransform, layersPattern);
  // A full path already determines the layer.
  return (path) => wanted(path) && (targetModules.includes(path) || inLayer(path));
}

function isAllLinear(targets: Targets): targets is string {
  return typeof targets === "string" && targets.toLowerCase() === "all-linear";
}

/** Names of classifier heads, by priority. */
const CLASSIFIERS = ["score", "classifier"];

/** Returns the path that `all-linear` excludes: the output head, or a classifier's. */
function findHead(model: Targetable, taskType: string | undefined): string | undefined {
  if (model.outputHead !== undefined) return model.outputHead;
  if (taskType !== "SEQ_CLS") return undefined;
  const children = new Map(model.children());
  return CLASSIFIERS.find((name) => children.has(name));
}

/** The number of names from which PEFT shortens targets to their shortest distinguishing endings. */
const SHORTEN_FROM = 20;

/**
 * Returns targets for the configuration file: PEFT's form, or a pattern of the exact paths if that form would match more
 * layers when read again, as when one path ends with another.
 */
export function convertTargets(model: Targetable, targeting: Targeting): Targets {
  const targetModules = condenseTargets(model, targeting);
  if (targetModules === targeting.targetModules) return targetModules;
  const selected = [...findTargets(model, targeting).keys()];
  const same = findTargets(model, { ...targeting, targetModules }).size === selected.length;
  return same ? targetModules : `(${selected.map(escapePath).join("|")})`;
}

/**
 * Returns targets as PEFT writes them: `all-linear` becomes its paths, before exclusions, and 20 or more names become the
 * shortest endings that match the same modules. Source: PEFT's _maybe_include_all_linear_layers and
 * _find_minimal_target_modules.
 */
function condenseTargets(model: Targetable, targeting: Targeting): Targets {
  const { targetModules } = targeting;
  const names = isAllLinear(targetModules) ? [...listLinears(model, targeting)] : targetModules;
  if (typeof names === "string" || names.length < SHORTEN_FROM) return names;
  const paths = [...model.namedModules()].map(([path]) => path);
  const hit = compileTargets(names, "targetModules");
  const excluded = new Set(paths.filter((path) => !hit(path)).flatMap(listEndings));
  const shortest = new Set<string>();
  for (const name of sortByEndings(names)) {
    for (const ending of listEndings(name)) {
      if (shortest.has(ending) || excluded.has(ending)) continue;
      if (!listEndings(name).some((suffix) => suffix !== name && shortest.has(suffix))) {
        shortest.add(ending);
        break;
      }
    }
  }
  return shortest.size < names.length ? [...shortest] : names;
}

function* listLinears(model: Targetable, targeting: Targeting): IterableIterator<string> {
  const chosen = createChooser(model, targeting);
  for (const [path, module] of model.namedModules()) if (chosen(path, module)) yield path;
}

/** Returns a path's endings, shortest first. */
export function listEndings(path: string): string[] {
  const parts = path.split(".");
  return parts.map((_, i) => parts.slice(-1 - i).join("."));
}

/** Sorts names by their endings, as PEFT does. */
function sortByEndings(names: readonly string[]): string[] {
  const parts = new Map(names.map((name) => [name, listEndings(name)]));
  const compare = (a: readonly string[], b: readonly string[]): number => {
    for (const [i, part] of a.entries()) {
      const other = b[i];
      if (other === undefined || part > other) return 1;
      if (part < other) return -1;
    }
    return a.length - b.length;
  };
  return [...parts.keys()].sort((a, b) => compare(parts.get(a) as string[], parts.get(b) as string[]));
}

/** Returns a predicate for paths that match `targets`: a pattern must match the full path, a name the end of it. */
export function compileTargets(targets: Targets, option: string): (path: string) => boolean {
  if (typeof targets !== "string") {
    const names = new Set(targets);
    return (path) => listEndings(path).some((ending) => names.has(ending));
  }
  const pattern = compilePythonRegex(targets, option);
  return (path) => pattern.test(path);
}

/** Returns a predicate for paths whose layer number is in `layers`. */
function createLayerFilter(
  layers: NonNullable<Targeting["layersToTransform"]>,
  lists: string | readonly string[] = [],
): (path: string) => boolean {
  const wanted = new Set(typeof layers === "number" ? [layers] : layers);
  const number = createNumberReader(lists);
  return (path) => {
    const found = number(path);
    return found !== undefined && wanted.has(found);
  };
}

/**
 * Returns a function from a path to its layer number: the first number after any list, or after one of `lists`; undefined
 * if there is none. Source: PEFT's check_target_module_exists.
 */
export function createNumberReader(
  lists: string | readonly string[] = [],
): (path: string) => number | undefined {
  const names = typeof lists === "string" ? [lists] : lists;
  const patterns =
    names.length === 0
      ? [/^.*?\.[^.]*\.(?<idx>\d+)\./u]
      : names.map((name) =>
          compilePythonRegex(name, "layersPattern", (body) => `^(?:|.*?\\.)${body}\\.(?<idx>\\d+)\\.`),
        );
  return (path) => {
    for (const pattern of patterns) {
      const index = pattern.exec(path)?.groups?.["idx"];
      if (index !== undefined) return Number(index);
    }
    return undefined;
  };
}
