/**
 * Validates arguments. Each function returns the value, or throws `ERR_OPTION` with the function, the argument and the
 * value: `clamp: low must be a number, got "x"`.
 */
import { LowrankError } from "../errors.js";
import { adviseLibraryOption } from "./foreign-name.js";
import { optionName } from "./option-name.js";
import { didYouMean } from "./suggest.js";

/** Returns the name of a class; "" if its static `name` is not a string. */
function readClassName(Class: Function): string {
  const name: unknown = Object.getOwnPropertyDescriptor(Class, "name")?.value;
  return typeof name === "string" ? name : "";
}

/** Formats `value` for an error: short, and without calling its code. */
export function formatValue(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}…` : value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "function") return isClass(value) ? `the class ${readClassName(value)}` : "a function";
  if (typeof value !== "object" || value === null) return String(value);
  if (Array.isArray(value)) {
    const plain = value.length <= 8 && value.every((item) => item === null || typeof item !== "object");
    return plain ? `[${value.map(formatValue).join(", ")}]` : `an array of ${value.length}`;
  }
  const constructor: unknown = Object.getOwnPropertyDescriptor(value, "constructor")?.value;
  if (typeof constructor === "function" && constructor.prototype === value)
    return `the prototype of ${readClassName(constructor)}`;
  const Class: unknown = (Object.getPrototypeOf(value) as { constructor?: unknown } | null)?.constructor;
  const name = typeof Class === "function" ? readClassName(Class) : "";
  if (name === "Object" || name === "") return "an object";
  return `${/^[AEIOU]/.test(name) ? "an" : "a"} ${name}`;
}

/** Throws `ERR_OPTION`: `where: name must be expected, got value`. */
export function refuse(where: string, name: string, expected: string, value: unknown): never {
  throw new LowrankError(
    "ERR_OPTION",
    `${where}: ${optionName(name)} must be ${expected}, got ${formatValue(value)}`,
  );
}

/** Accepts any number except NaN, including infinities. */
export function checkNumber(where: string, name: string, value: unknown): number {
  return typeof value === "number" && !Number.isNaN(value) ? value : refuse(where, name, "a number", value);
}

/** Accepts a number that satisfies `holds`; `expected` describes that condition. */
export function checkNumberThat(
  where: string,
  name: string,
  value: unknown,
  holds: (value: number) => boolean,
  expected: string,
): number {
  return typeof value === "number" && holds(value) ? value : refuse(where, name, expected, value);
}

/** Accepts a whole number of at least `least`. */
export function checkWhole(where: string, name: string, value: unknown, least = 0): number {
  return checkNumberThat(
    where,
    name,
    value,
    (n) => Number.isSafeInteger(n) && n >= least,
    `a whole number of at least ${least}`,
  );
}

/** Accepts a number from 0 to 1. */
export function checkProbability(where: string, name: string, value: unknown): number {
  return checkNumberThat(where, name, value, (n) => n >= 0 && n <= 1, "a number from 0 to 1");
}

export function checkFlag(where: string, name: string, value: unknown): boolean {
  return typeof value === "boolean" ? value : refuse(where, name, "true or false", value);
}

export function checkText(where: string, name: string, value: unknown): string {
  return typeof value === "string" ? value : refuse(where, name, "a string", value);
}

/** Accepts one of `choices`. */
export function checkChoice<T extends string>(
  where: string,
  name: string,
  value: unknown,
  choices: readonly T[],
): T {
  if ((choices as readonly unknown[]).includes(value)) return value as T;
  const expected = `one of ${choices.join(", ")}`;
  throw new LowrankError(
    "ERR_OPTION",
    `${where}: ${optionName(name)} must be ${expected}, got ${formatValue(value)}${didYouMean(value, choices)}`,
  );
}

/** Whether a function is a class, which cannot be called: only a class has a read-only prototype. */
const isClass = (value: Function): boolean =>
  Object.getOwnPropertyDescriptor(value, "prototype")?.writable === false;

/** Accepts a function that can be called. */
export function checkCallable<T extends Function>(where: string, name: string, value: T): T {
  if (typeof value === "function" && !isClass(value)) return value;
  return refuse(where, name, "a function", value);
}

/** Accepts an array whose elements pass `element`. */
export function checkList<T>(
  where: string,
  name: string,
  value: unknown,
  element: (where: string, name: string, value: unknown) => T,
): T[] {
  if (!Array.isArray(value)) return refuse(where, name, "an array", value);
  return value.map((item, i) => element(where, `${name}[${i}]`, item));
}

/** Whether `value` is a plain object, which has only its own properties. */
export function isPlain(value: unknown): value is object {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  // An object of another realm has that realm's Object.prototype, which also has no prototype.
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/**
 * Throws `ERR_OPTION` for an option that is not in `known`, with the closest name, or with the one for another library's
 * name. `paths` has the paths of options in groups, such as `optimizer.lr`.
 */
export function refuseUnknownOption(
  where: string,
  name: string,
  known: readonly string[],
  paths: readonly string[] = known,
): never {
  const advice = adviseLibraryOption(name, paths);
  const rest =
    advice === undefined ? `${didYouMean(name, known)}; there are ${known.join(", ")}` : `; ${advice}`;
  throw new LowrankError("ERR_OPTION", `${where}: there is no option ${name}${rest}`);
}

/**
 * Returns the options of a call; `{}` if there are none. Throws for names that are not in `known`, to catch misspellings.
 * `paths` has the paths of options in groups.
 */
export function checkKnownOptions<T extends object>(
  where: string,
  value: T | undefined,
  known: readonly (keyof T & string)[],
  paths?: readonly string[],
): T {
  if (value === undefined) return {} as T;
  if (!isPlain(value)) return refuse(where, "the last argument", "an object of options", value);
  for (const name of Object.keys(value)) {
    if (!(known as readonly string[]).includes(name)) refuseUnknownOption(where, name, known, paths);
  }
  return value;
}
