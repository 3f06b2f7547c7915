/** Selects paths exactly in the terms of a configuration. */
import type { Pattern } from "./patterns.js";
import { escapePath } from "./python-regex.js";
import { findTargets, type Targetable, type Targets } from "./targets.js";

/**
 * Returns the paths whose value is not the common one, and common ones that another's key would also match, since a key
 * matches the end of a path. The longest paths come first, since the first matching key applies.
 */
export function listExceptions(
  values: readonly (readonly [path: string, value: number])[],
  common: number,
): (readonly [path: string, value: number])[] {
  const others = values.filter(([, value]) => value !== common);
  const isAmbiguous = ([path]: readonly [string, number]): boolean =>
    others.some(([other]) => path.endsWith(`.${other}`));
  return values
    .filter((entry) => entry[1] !== common || isAmbiguous(entry))
    .sort(([a], [b]) => b.length - a.length);
}

/** Returns ranks and alphas as options: the most frequent value, and patterns for the other paths. */
export function describeRanks(layers: ReadonlyMap<string, { r: number; loraAlpha: number }>): {
  r: number;
  loraAlpha: number;
  rankPattern: Pattern;
  alphaPattern: Pattern;
} {
  const spread = (key: "r" | "loraAlpha"): [common: number, others: Pattern] => {
    const values = [...layers].map(([path, layer]) => [path, layer[key]] as const);
    const counts = new Map<number, number>();
    for (const [, value] of values) counts.set(value, (counts.get(value) ?? 0) + 1);
    const [common] = [...counts].reduce((best, entry) => (entry[1] > best[1] ? entry : best), [1, 0]);
    const others = listExceptions(values, common).map(([path, value]) => [escapePath(path), value]);
    return [common, Object.fromEntries(others) as Pattern];
  };
  const [[r, rankPattern], [loraAlpha, alphaPattern]] = [spread("r"), spread("loraAlpha")];
  return { r, loraAlpha, rankPattern, alphaPattern };
}

/** Returns targets that match exactly `paths`: the names in `known` if they do, else the paths, else a pattern. */
export function matchExactly(
  model: Targetable,
  paths: readonly string[],
  known: readonly Targets[],
): Targets {
  const names = [...new Set(known.flatMap((targets) => targets))];
  const selectsExactly = (targets: readonly string[]): boolean => {
    const hit = new Set(findTargets(model, { targetModules: targets }).keys());
    return hit.size === paths.length && paths.every((path) => hit.has(path));
  };
  if (known.length > 0 && known.every((targets) => typeof targets !== "string") && selectsExactly(names))
    return names;
  return selectsExactly(paths) ? paths : `(${paths.map(escapePath).join("|")})`;
}
