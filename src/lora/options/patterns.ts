/** Values by layer name in a configuration: PEFT's rank_pattern and alpha_pattern. */
import { compilePythonRegex } from "./python-regex.js";

/** Values by key; a key is a Python pattern that matches a layer's path or the end of it. */
export type Pattern = Readonly<Record<string, number>>;

/**
 * Returns a function from a path to the value of the first key that matches `(.*\.)?(key)$`, or undefined.
 * Source: PEFT's get_pattern_key.
 */
export function compilePatterns(pattern: Pattern, option: string): (path: string) => number | undefined {
  const compiled = Object.entries(pattern).map(
    ([key, value]) => [compilePythonRegex(key, option, (body) => `^(?:.*\\.)?(?:${body})$`), value] as const,
  );
  return (path) => compiled.find(([regex]) => regex.test(path))?.[1];
}
