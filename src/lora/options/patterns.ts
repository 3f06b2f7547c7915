/** Values that a configuration gives by the name of a layer: PEFT's rank_pattern and alpha_pattern. */
import { pythonRegex } from "./python-regex.js";

/** A value for each layer whose path, or the end of it, a key matches as a Python pattern. */
export type Pattern = Readonly<Record<string, number>>;

/**
 * What `pattern` gives a path: the value of the first key that matches `(.*\.)?(key)$`, or
 * undefined. Source: PEFT's get_pattern_key.
 */
export function patternReader(pattern: Pattern, option: string): (path: string) => number | undefined {
  const compiled = Object.entries(pattern).map(
    ([key, value]) => [pythonRegex(key, option, (body) => `^(?:.*\\.)?(?:${body})$`), value] as const,
  );
  return (path) => compiled.find(([regex]) => regex.test(path))?.[1];
}
