/** Which modules of a model an adapter targets: PEFT's rules. */
import { LowrankError } from "../errors.js";
import { Embedding } from "../nn/embedding.js";
import { Linear } from "../nn/linear.js";
import type { Module } from "../nn/module.js";

/** A full-match regex or `all-linear`; or names, each exact or the end of a path. */
export type Targets = string | readonly string[];

/** PEFT's targets for a family when none are given. */
const FAMILY_TARGETS: Record<string, readonly string[]> = {
  llama: ["q_proj", "v_proj"],
  mistral: ["q_proj", "v_proj"],
};

/** What targeting asks of a model, besides its modules. */
export interface Targetable extends Module {
  config?: object;
  /** The path of the output head, which `all-linear` leaves alone. */
  outputHead?: string;
}

/** The default targets of a model: PEFT's table where it has the family, all linears elsewhere. */
export function defaultTargets(model: Targetable): Targets {
  const config = (model.config ?? {}) as { model_type?: unknown; modelType?: unknown };
  const family = config.model_type ?? config.modelType;
  return (typeof family === "string" ? FAMILY_TARGETS[family] : undefined) ?? "all-linear";
}

/**
 * Paths of the modules that `targets` names and `exclude` does not, in the model's order.
 * Throws `ERR_NO_TARGETS` with the candidates when there are none.
 */
export function targeted(
  model: Targetable,
  targets: Targets,
  exclude: Targets | undefined,
): Map<string, Linear | Embedding> {
  const wanted = matcher(targets, "targetModules");
  const unwanted = exclude === undefined ? () => false : matcher(exclude, "excludeModules");
  const found = new Map<string, Linear | Embedding>();
  const candidates = new Map<string, Linear | Embedding>();
  for (const [path, module] of model.namedModules()) {
    if (!(module instanceof Linear || module instanceof Embedding)) continue;
    candidates.set(path, module);
    const hit =
      targets === "all-linear" ? module instanceof Linear && path !== model.outputHead : wanted(path);
    if (hit && !unwanted(path)) found.set(path, module);
  }
  if (found.size === 0) {
    const names = [...new Set([...candidates.keys()].map((p) => p.split(".").pop() as string))].sort();
    const asked = typeof targets === "string" ? `"${targets}"` : `[${targets.join(", ")}]`;
    throw new LowrankError(
      "ERR_NO_TARGETS",
      `targetModules: ${asked} matches no layer that can be adapted; there are: ${names.join(", ") || "none"}`,
    );
  }
  return found;
}

/** Names from which on PEFT writes the shortest endings that still tell targets apart. */
const SHORTEN_FROM = 20;

/**
 * Targets as PEFT writes them: `all-linear` as the paths it stands for, before any is excluded, and
 * from 20 names on the shortest endings that hit the same modules. Source: PEFT's
 * _maybe_include_all_linear_layers and _find_minimal_target_modules.
 */
export function written(model: Targetable, targets: Targets): Targets {
  const paths = [...model.namedModules()].map(([path]) => path);
  const names = targets === "all-linear" ? [...targeted(model, targets, undefined).keys()] : targets;
  if (typeof names === "string" || names.length < SHORTEN_FROM) return names;
  const hit = matcher(names, "targetModules");
  const taken = new Set(paths.filter((path) => !hit(path)).flatMap(endings));
  const shortest = new Set<string>();
  for (const name of names) {
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

/** A path's endings, the shortest first. */
function endings(path: string): string[] {
  const parts = path.split(".");
  return parts.map((_, i) => parts.slice(-1 - i).join("."));
}

function matcher(targets: Targets, option: string): (path: string) => boolean {
  if (typeof targets !== "string") {
    return (path) => targets.some((t) => path === t || path.endsWith(`.${t}`));
  }
  const pattern = pythonPattern(targets, option);
  return (path) => pattern.test(path);
}

/** A Python pattern that must match in full, as JavaScript has it. */
export function pythonPattern(source: string, option: string): RegExp {
  let flags = "u";
  let body = source.replace(/\(\?P<(\w+)>/g, "(?<$1>").replace(/\(\?P=(\w+)\)/g, "\\k<$1>");
  const inline = /^\(\?([a-z]+)\)/.exec(body);
  if (inline?.[1] !== undefined && /^[ims]+$/.test(inline[1])) {
    flags += inline[1];
    body = body.slice(inline[0].length);
  }
  try {
    return new RegExp(`^(?:${body})$`, flags);
  } catch {
    try {
      // Python allows escapes that a u-mode pattern refuses, such as "\_".
      return new RegExp(`^(?:${body})$`, flags.replace("u", ""));
    } catch (cause) {
      throw new LowrankError(
        "ERR_OPTION",
        `${option}: "${source}" is no regular expression: ${(cause as Error).message}`,
        { cause },
      );
    }
  }
}
