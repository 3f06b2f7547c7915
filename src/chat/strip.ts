/** Python's `strip`, `lstrip` and `rstrip` with a character argument, which the library ignores. */
import type { Value } from "./jinja.js";

const METHODS = ["strip", "lstrip", "rstrip"] as const;
type Method = (typeof METHODS)[number];

interface Node {
  type: string;
  callee?: Node;
  object?: Node;
  property?: Node;
  computed?: boolean;
  args?: Node[];
  value?: unknown;
}

/** Parses a call of one of these methods with an argument; undefined for any other statement. */
export function stripCall(
  statement: object | undefined,
): { method: Method; text: object | undefined; characters: object | undefined } | undefined {
  const { type, callee, args = [] } = (statement ?? {}) as Partial<Node>;
  if (type !== "CallExpression" || callee?.type !== "MemberExpression" || callee.computed) return undefined;
  const method = METHODS.find((name) => name === callee.property?.value);
  if (method === undefined || args.length !== 1) return undefined;
  return { method, text: callee.object, characters: args[0] };
}

/** Removes the given characters from the ends of `text`. */
export function stripCharacters(method: Method, text: Value, characters: Value): Value {
  if (typeof text.value !== "string") throw new Error(`${method}() is a method of strings`);
  if (typeof characters.value !== "string") throw new Error(`${method}() takes a string of characters`);
  const letters = Array.from(text.value);
  const dropped = new Set(characters.value);
  let [start, end] = [0, letters.length];
  if (method !== "rstrip") while (start < end && dropped.has(letters[start] as string)) start++;
  if (method !== "lstrip") while (end > start && dropped.has(letters[end - 1] as string)) end--;
  const Value = text.constructor as new (value: string) => Value;
  return new Value(letters.slice(start, end).join(""));
}
