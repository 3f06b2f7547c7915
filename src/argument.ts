/**
 * Checks of what callers pass. Each gives the value, and throws `ERR_OPTION` where it is of another kind, naming the
 * function, the argument and what was passed: `clamp: low is a number, not "x"`.
 */
import { LowrankError } from "./errors.js";
import { optionName } from "./option-name.js";
import { didYouMean } from "./suggest.js";

/** What a class is called; "" where it has a `name` of its own that is no text. */
function nameOf(made: Function): string {
  const name: unknown = Object.getOwnPropertyDescriptor(made, "name")?.value;
  return typeof name === "string" ? name : "";
}

/** `value` as an error shows it: short, and never running code of its own. */
export function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}…` : value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "function") return isClass(value) ? `the class ${nameOf(value)}` : "a function";
  if (typeof value !== "object" || value === null) return String(value);
  if (Array.isArray(value)) {
    const plain = value.length <= 8 && value.every((one) => one === null || typeof one !== "object");
    return plain ? `[${value.map(shown).join(", ")}]` : `an array of ${value.length}`;
  }
  const own: unknown = Object.getOwnPropertyDescriptor(value, "constructor")?.value;
  if (typeof own === "function" && own.prototype === value) return `the prototype of ${nameOf(own)}`;
  const made: unknown = (Object.getPrototypeOf(value) as { constructor?: unknown } | null)?.constructor;
  const name = typeof made === "function" ? nameOf(made) : "";
  if (name === "Object" || name === "") return "an object";
  return `${/^[AEIOU]/.test(name) ? "an" : "a"} ${name}`;
}

/** Throws `ERR_OPTION`: `where: name is expected, not value`. */
export function refuse(where: string, name: string, expected: string, value: unknown): never {
  throw new LowrankError("ERR_OPTION", `${where}: ${optionName(name)} is ${expected}, not ${shown(value)}`);
}

/** Any number, infinities among them, but NaN. */
export function numeric(where: string, name: string, value: unknown): number {
  return typeof value === "number" && !Number.isNaN(value) ? value : refuse(where, name, "a number", value);
}

/** A number of which `holds` is true, where `expected` says what that is. */
export function numberThat(
  where: string,
  name: string,
  value: unknown,
  holds: (value: number) => boolean,
  expected: string,
): number {
  return typeof value === "number" && holds(value) ? value : refuse(where, name, expected, value);
}

/** A whole number from `least` on. */
export function whole(where: string, name: string, value: unknown, least = 0): number {
  return numberThat(
    where,
    name,
    value,
    (n) => Number.isSafeInteger(n) && n >= least,
    `a whole number from ${least} on`,
  );
}

/** A probability, from 0 to 1. */
export function probability(where: string, name: string, value: unknown): number {
  return numberThat(where, name, value, (n) => n >= 0 && n <= 1, "a number from 0 to 1");
}

export function flag(where: string, name: string, value: unknown): boolean {
  return typeof value === "boolean" ? value : refuse(where, name, "true or false", value);
}

export function text(where: string, name: string, value: unknown): string {
  return typeof value === "string" ? value : refuse(where, name, "a text", value);
}

/** One of `choices`. */
export function oneOf<T extends string>(
  where: string,
  name: string,
  value: unknown,
  choices: readonly T[],
): T {
  if ((choices as readonly unknown[]).includes(value)) return value as T;
  const expected = `one of ${choices.join(", ")}`;
  throw new LowrankError(
    "ERR_OPTION",
    `${where}: ${optionName(name)} is ${expected}, not ${shown(value)}${didYouMean(value, choices)}`,
  );
}

/** Whether a function is a class, which cannot be called: its prototype alone is fixed. */
const isClass = (value: Function): boolean =>
  Object.getOwnPropertyDescriptor(value, "prototype")?.writable === false;

/** A function that can be called. */
export function callable<T extends Function>(where: string, name: string, value: T): T {
  if (typeof value === "function" && !isClass(value)) return value;
  return refuse(where, name, "a function", value);
}

/** An array, each element of it checked by `element`. */
export function listOf<T>(
  where: string,
  name: string,
  value: unknown,
  element: (where: string, name: string, value: unknown) => T,
): T[] {
  if (!Array.isArray(value)) return refuse(where, name, "an array", value);
  return value.map((one, i) => element(where, `${name}[${i}]`, one));
}

/** Whether `value` is an object that no class made, so that all it says are properties of its own. */
export function isPlain(value: unknown): value is object {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  // Of another realm it is another Object.prototype, over which there is nothing either.
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/**
 * The options of a call, of which none but `known` may be there; `{}` where there are none. So a misspelled option is
 * an error, and not silence.
 */
export function options<T extends object>(
  where: string,
  value: T | undefined,
  known: readonly (keyof T & string)[],
): T {
  if (value === undefined) return {} as T;
  if (!isPlain(value)) return refuse(where, "the last argument", "an object of options", value);
  for (const name of Object.keys(value)) {
    if (!(known as readonly string[]).includes(name))
      throw new LowrankError(
        "ERR_OPTION",
        `${where}: there is no option ${name}${didYouMean(name, known)}; there are ${known.join(", ")}`,
      );
  }
  return value;
}
