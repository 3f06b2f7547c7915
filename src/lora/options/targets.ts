/** Which modules of a model an adapter targets: PEFT's rules. */
import { LowrankError } from "../../errors.js";
import { optionName } from "../../option-name.js";
import { didYouMean } from "../../suggest.js";
import { ConvNd } from "../../nn/conv.js";
import { Embedding } from "../../nn/embedding.js";
import { Linear } from "../../nn/linear.js";
import type { Module } from "../../nn/module.js";
import { MultiheadAttention } from "../../nn/multihead-attention.js";
import { escaped, pythonRegex } from "./python-regex.js";

/** A full-match regex, `all-linear`, or `peft` for PEFT's own by the model's family; or names, each exact or the end of a path. */
export type Targets = string | readonly string[];

/** PEFT's targets for a family when none are given. */
const FAMILY_TARGETS: Record<string, readonly string[]> = {
  llama: ["q_proj", "v_proj"],
  mistral: ["q_proj", "v_proj"],
  qwen2: ["q_proj", "v_proj"],
  qwen3: ["q_proj", "v_proj"],
  gemma3_text: ["q_proj", "v_proj"],
  gpt2: ["c_attn"],
  bert: ["query", "value"],
  roberta: ["query", "value"],
};

/** What may be adapted: any module. What it says of itself besides is taken where it is there. */
export interface Targetable extends Module {
  /** `model_type` or `modelType` is the family that PEFT's table of targets is asked for. */
  config?: object | undefined;
  /** Where the model came from: `base_model_name_or_path` of a saved adapter. */
  source?: string | undefined;
  /** The commit at a hub that it is of: `revision` of a saved adapter, by which PEFT loads the base. */
  revision?: string | undefined;
  /** Which embedding takes the ids. */
  inputEmbedding?(): Embedding;
  /** The path of the output head, which `all-linear` leaves alone. */
  outputHead?: string | undefined;
  /** What it is for, in PEFT's words: CAUSAL_LM, SEQ_CLS, … */
  taskType?: string | undefined;
}

/** What PEFT's table names for the family of a model; undefined where it has it not. */
function familyTargets(model: Targetable): Targets | undefined {
  const config = (model.config ?? {}) as { model_type?: unknown; modelType?: unknown };
  const family = config.model_type ?? config.modelType;
  return typeof family === "string" && Object.hasOwn(FAMILY_TARGETS, family)
    ? FAMILY_TARGETS[family]
    : undefined;
}

/** The default targets of a model: PEFT's table where it has the family, all linears elsewhere. */
export function defaultTargets(model: Targetable): Targets {
  return familyTargets(model) ?? "all-linear";
}

/** `targets`, or what PEFT's table names for the model where they are "peft". Throws `ERR_NO_TARGETS`. */
export function namedTargets(model: Targetable, targets: Targets): Targets {
  if (targets !== "peft") return targets;
  const found = familyTargets(model);
  if (found !== undefined) return found;
  throw new LowrankError(
    "ERR_NO_TARGETS",
    `${optionName("targetModules")}: "peft" is PEFT's table by family, which has ${Object.keys(FAMILY_TARGETS).join(", ")} and not this model's; name layers, or all-linear; there are: ${candidatesOf(model).join(", ") || "none"}`,
  );
}

/** Names of the layers that can be adapted. */
function candidatesOf(model: Module): string[] {
  const paths = [...model.namedModules()].flatMap(([path, module]) =>
    path !== "" && isAdaptable(module) ? [path] : [],
  );
  return [...new Set(paths.map((path) => path.split(".").pop() as string))].sort();
}

/** What chooses among a model's layers. */
export interface Targeting {
  targetModules: Targets;
  excludeModules?: Targets | undefined;
  layersToTransform?: number | readonly number[] | undefined;
  layersPattern?: string | readonly string[] | undefined;
  taskType?: string | undefined;
}

/** Layers that can be adapted. */
export type Adaptable = Linear | Embedding | ConvNd | MultiheadAttention;

/** Whether a module is one that can be adapted. */
export function isAdaptable(module: Module | undefined): module is Adaptable {
  return (
    module instanceof Linear ||
    module instanceof Embedding ||
    module instanceof ConvNd ||
    module instanceof MultiheadAttention
  );
}

/**
 * The layers that are targeted, by path, in the model's order.
 * Throws `ERR_NO_TARGETS` with the candidates when there are none.
 */
export function targeted(model: Targetable, targeting: Targeting): Map<string, Adaptable> {
  const { targetModules, excludeModules } = targeting;
  const wanted = chooser(model, targeting);
  const unwanted = excludeModules === undefined ? () => false : matcher(excludeModules, "excludeModules");
  const found = new Map<string, Adaptable>();
  for (const [path, module] of model.namedModules()) {
    // A model has no place for itself that another layer could take.
    if (path === "" || !isAdaptable(module)) continue;
    // As in PEFT, an attention layer is adapted with its output projection.
    const chosen = wanted(path, module) || attentionOf(path, found) !== undefined;
    if (chosen && !unwanted(path)) found.set(path, module);
  }
  if (found.size > 0) return found;
  const asked = typeof targetModules === "string" ? `"${targetModules}"` : `[${targetModules.join(", ")}]`;
  const narrowed = (["excludeModules", "layersToTransform"] as const).flatMap((option) =>
    targeting[option] === undefined ? [] : [`${optionName(option)} ${JSON.stringify(targeting[option])}`],
  );
  const candidates = candidatesOf(model);
  const names = typeof targetModules === "string" ? [targetModules] : targetModules;
  const near = names.map((name) => didYouMean(name, [...candidates, "all-linear"])).find(Boolean) ?? "";
  throw new LowrankError(
    "ERR_NO_TARGETS",
    `${optionName("targetModules")}: ${asked}${narrowed.length > 0 ? ` with ${narrowed.join(" and ")}` : ""} matches no layer that can be adapted${near}; there are: ${candidates.join(", ") || "none"}${isAdaptable(model) ? "; the model is a layer itself, which only a module around it can replace: put it in an nn.Sequential, or use lora's layer of its kind" : ""}`,
  );
}

/** The path of the attention layer among `layers` whose output projection `path` is. */
export function attentionOf(path: string, layers: ReadonlyMap<string, Module>): string | undefined {
  const attention = path.endsWith(OUT_PROJ) ? path.slice(0, -OUT_PROJ.length) : undefined;
  return attention !== undefined && layers.get(attention) instanceof MultiheadAttention
    ? attention
    : undefined;
}

const OUT_PROJ = ".out_proj";

/** Which layers `targetModules` and `layersToTransform` choose, before any is excluded. */
function chooser(
  model: Targetable,
  { targetModules, layersToTransform, layersPattern, taskType }: Targeting,
): (path: string, module: Module) => boolean {
  if (isAllLinear(targetModules)) {
    const head = headOf(model, taskType);
    return (path, module) => module instanceof Linear && path !== head;
  }
  const wanted = matcher(targetModules, "targetModules");
  if (
    layersToTransform === undefined ||
    (typeof layersToTransform === "object" && layersToTransform.length === 0)
  )
    return wanted;
  const inLayer = layerFilter(layersToTransform, layersPattern);
  // A path that is given in full says itself which layer it means.
  return (path) => wanted(path) && (targetModules.includes(path) || inLayer(path));
}

function isAllLinear(targets: Targets): targets is string {
  return typeof targets === "string" && targets.toLowerCase() === "all-linear";
}

/** What a classifier's head is called, in the order in which it is looked for. */
const CLASSIFIERS = ["score", "classifier"];

/** The path that `all-linear` leaves alone: the output head, or a classifier's. */
function headOf(model: Targetable, taskType: string | undefined): string | undefined {
  if (model.outputHead !== undefined) return model.outputHead;
  if (taskType !== "SEQ_CLS") return undefined;
  const own = new Map(model.children());
  return CLASSIFIERS.find((name) => own.has(name));
}

/** Names from which on PEFT writes the shortest endings that still tell targets apart. */
const SHORTEN_FROM = 20;

/**
 * Targets as they are written: PEFT's, or where these would hit more when they are read again (a
 * path that ends another's), a pattern of just what is targeted.
 */
export function written(model: Targetable, targeting: Targeting): Targets {
  const targetModules = condensed(model, targeting);
  if (targetModules === targeting.targetModules) return targetModules;
  const meant = [...targeted(model, targeting).keys()];
  const same = targeted(model, { ...targeting, targetModules }).size === meant.length;
  return same ? targetModules : `(${meant.map(escaped).join("|")})`;
}

/**
 * Targets as PEFT writes them: `all-linear` as the paths it stands for, before any is excluded, and
 * from 20 names on the shortest endings that hit the same modules. Source: PEFT's
 * _maybe_include_all_linear_layers and _find_minimal_target_modules.
 */
function condensed(model: Targetable, targeting: Targeting): Targets {
  const { targetModules } = targeting;
  const names = isAllLinear(targetModules) ? [...everyLinear(model, targeting)] : targetModules;
  if (typeof names === "string" || names.length < SHORTEN_FROM) return names;
  const paths = [...model.namedModules()].map(([path]) => path);
  const hit = matcher(names, "targetModules");
  const taken = new Set(paths.filter((path) => !hit(path)).flatMap(endings));
  const shortest = new Set<string>();
  for (const name of inOrder(names)) {
    for (const ending of endings(name)) {
      if (shortest.has(ending) || taken.has(ending)) continue;
      if (!endings(name).some((one) => one !== name && shortest.has(one))) {
        shortest.add(ending);
        break;
      }
    }
  }
  return shortest.size < names.length ? [...shortest] : names;
}

function* everyLinear(model: Targetable, targeting: Targeting): IterableIterator<string> {
  const chosen = chooser(model, targeting);
  for (const [path, module] of model.namedModules()) if (chosen(path, module)) yield path;
}

/** A path's endings, the shortest first. */
export function endings(path: string): string[] {
  const parts = path.split(".");
  return parts.map((_, i) => parts.slice(-1 - i).join("."));
}

/** Names in the order of their endings, as PEFT goes through them. */
function inOrder(names: readonly string[]): string[] {
  const parts = new Map(names.map((name) => [name, endings(name)]));
  const compare = (a: readonly string[], b: readonly string[]): number => {
    for (const [i, one] of a.entries()) {
      const other = b[i];
      if (other === undefined || one > other) return 1;
      if (one < other) return -1;
    }
    return a.length - b.length;
  };
  return [...parts.keys()].sort((a, b) => compare(parts.get(a) as string[], parts.get(b) as string[]));
}

/** Whether a path matches `targets`: as a whole by a pattern, by its end by a list of names. */
export function matcher(targets: Targets, option: string): (path: string) => boolean {
  if (typeof targets !== "string") {
    const names = new Set(targets);
    return (path) => endings(path).some((ending) => names.has(ending));
  }
  const pattern = pythonRegex(targets, option);
  return (path) => pattern.test(path);
}

/** Whether the number of a path's layer is one of those asked for. */
function layerFilter(
  layers: NonNullable<Targeting["layersToTransform"]>,
  lists: string | readonly string[] = [],
): (path: string) => boolean {
  const wanted = new Set(typeof layers === "number" ? [layers] : layers);
  const number = numberReader(lists);
  return (path) => {
    const found = number(path);
    return found !== undefined && wanted.has(found);
  };
}

/**
 * Reads the number of a path's layer: the first number that follows any list, or one of `lists`; undefined where there
 * is none. Source: PEFT's check_target_module_exists.
 */
export function numberReader(lists: string | readonly string[] = []): (path: string) => number | undefined {
  const names = typeof lists === "string" ? [lists] : lists;
  const patterns =
    names.length === 0
      ? [/^.*?\.[^.]*\.(?<idx>\d+)\./u]
      : names.map((name) =>
          pythonRegex(name, "layersPattern", (body) => `^(?:|.*?\\.)${body}\\.(?<idx>\\d+)\\.`),
        );
  return (path) => {
    for (const pattern of patterns) {
      const index = pattern.exec(path)?.groups?.["idx"];
      if (index !== undefined) return Number(index);
    }
    return undefined;
  };
}
