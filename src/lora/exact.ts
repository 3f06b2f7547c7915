/** Paths as a configuration names them. */
import type { Pattern } from "./patterns.js";
import { targeted, type Targetable, type Targets } from "./targets.js";

/** A path as a Python pattern that matches it alone. */
function escaped(path: string): string {
  return path.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
}

/**
 * Values by path as a pattern. A key matches the end of a path too, so that longer ones stand
 * first: the first that matches counts.
 */
function exactPattern(values: readonly (readonly [path: string, value: number])[]): Pattern {
  const longestFirst = [...values].sort(([a], [b]) => b.length - a.length);
  return Object.fromEntries(longestFirst.map(([path, value]) => [escaped(path), value]));
}

/** Ranks and alphas by path, as the options say them: the commonest, and patterns for the others. */
export function ranksAndAlphas(layers: ReadonlyMap<string, { r: number; loraAlpha: number }>): {
  r: number;
  loraAlpha: number;
  rankPattern: Pattern;
  alphaPattern: Pattern;
} {
  const spread = (key: "r" | "loraAlpha"): [common: number, others: Pattern] => {
    const values = [...layers].map(([path, layer]) => [path, layer[key]] as const);
    const counts = new Map<number, number>();
    for (const [, value] of values) counts.set(value, (counts.get(value) ?? 0) + 1);
    const [common] = [...counts].reduce((best, one) => (one[1] > best[1] ? one : best), [1, 0]);
    return [common, exactPattern(values.filter(([, value]) => value !== common))];
  };
  const [[r, rankPattern], [loraAlpha, alphaPattern]] = [spread("r"), spread("loraAlpha")];
  return { r, loraAlpha, rankPattern, alphaPattern };
}

/** Targets that hit exactly `paths`: the names in `known` where they do, else the paths, else a pattern. */
export function exactTargets(
  model: Targetable,
  paths: readonly string[],
  known: readonly Targets[],
): Targets {
  const names = [...new Set(known.flatMap((targets) => targets))];
  const hits = (targets: readonly string[]): boolean => {
    const hit = new Set(targeted(model, { targetModules: targets }).keys());
    return hit.size === paths.length && paths.every((path) => hit.has(path));
  };
  if (known.length > 0 && known.every((targets) => typeof targets !== "string") && hits(names)) return names;
  return hits(paths) ? paths : `(${paths.map(escaped).join("|")})`;
}
