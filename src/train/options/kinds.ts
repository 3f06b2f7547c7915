/**
 * The kinds of option values, each with its check. A check's message completes "must": `be a whole number of at least 1`.
 */
import {
  array,
  boolean,
  custom,
  finite,
  type GenericSchema,
  gtValue,
  instance,
  ltValue,
  literal,
  maxValue,
  minValue,
  nonEmpty,
  number,
  picklist,
  pipe,
  regex,
  safeInteger,
  safeParse,
  string,
  union,
} from "valibot";

import { isPlain, formatValue } from "../../arguments/check.js";
import { parseSize } from "../../arguments/byte-size.js";
import type { TrainingData } from "../../data/given.js";
import { LowrankError } from "../../errors.js";
import { isRanks, type Ranks } from "../../ranks/ranks.js";
import type { InitLoraWeights } from "../../lora/options/init-weights.js";
import { optionName } from "../../arguments/option-name.js";
import { didYouMean } from "../../arguments/suggest.js";
import { parseSaveInterval } from "./save-interval.js";

/** The names of kinds, by which the command line chooses the parser of a flag's text. */
export type KindName =
  | "number"
  | "choice"
  | "flag"
  | "text"
  | "files"
  | "names"
  | "targets"
  | "initialisation"
  | "interval"
  | "size"
  | "devices"
  | "shares"
  | "port"
  | "folder";

/** A schema of the checking library, without its types, which declarations of the package cannot import. */
export interface Schema {
  readonly "~standard": object;
}

/** A kind of value. `Text` is the type of the value that the command line parses. */
export interface Kind<Value, Text = Value> {
  readonly name: KindName;
  /** The type in tables, such as `number`. */
  readonly type: string;
  readonly schema: Schema;
  /** The values that a config file may hold, if `schema` accepts others. */
  readonly inFile?: Schema;
  /** The accepted texts of a choice. */
  readonly choices?: readonly string[];
  /** Carries the types; never set. */
  readonly types?: { value: Value; text: Text };
}

/** Returns why a value is not of a kind, such as `be a whole number of at least 1`; undefined if it is. */
export function findFault(kind: Kind<unknown>, value: unknown): string | undefined {
  const { issues } = safeParse(kind.schema as GenericSchema, value);
  return issues?.[0].message;
}

/** Throws `ERR_OPTION` with the option, the fault and the value unless the value is of the kind. */
export function checkKind(option: string, kind: Kind<unknown>, value: unknown): void {
  const fault = findFault(kind, value);
  if (fault === undefined) return;
  const suffix = fault.startsWith("be ")
    ? `, got ${formatValue(value)}${didYouMean(value, kind.choices ?? [])}`
    : "";
  throw new LowrankError("ERR_OPTION", `${optionName(option)} must ${fault}${suffix}`);
}

/** A whole number of at least `least`. */
export function whole(least: number): Kind<number> {
  const fault = `be a whole number of at least ${least}`;
  const schema = pipe(number(fault), safeInteger(fault), minValue(least, fault));
  return { name: "number", type: "number", schema };
}

/** Throws `ERR_OPTION` unless the value is undefined or a whole number of at least 1. */
export function checkCount<T extends number | undefined>(option: string, value: T): T {
  if (value !== undefined) checkKind(option, whole(1), value);
  return value;
}

const finiteNumber = pipe(number("be a number"), finite("be a number"));

/** Any finite number. */
export const anyNumber: Kind<number> = { name: "number", type: "number", schema: finiteNumber };

/** A number of at least 0. */
export const notNegative: Kind<number> = {
  name: "number",
  type: "number",
  schema: pipe(finiteNumber, minValue(0, "be 0 or more")),
};

/** A number above 0. */
export const positive: Kind<number> = {
  name: "number",
  type: "number",
  schema: pipe(finiteNumber, gtValue(0, "be above 0")),
};

/** A number of at least 0 and below 1; `phrase` says so in messages. */
export function belowOne(phrase = "from 0 to below 1"): Kind<number> {
  const schema = pipe(finiteNumber, minValue(0, `be ${phrase}`), ltValue(1, `be ${phrase}`));
  return { name: "number", type: "number", schema };
}

/** A number above 0 and below 1. */
export const share: Kind<number> = {
  name: "number",
  type: "number",
  schema: pipe(finiteNumber, gtValue(0, "be above 0 and below 1"), ltValue(1, "be above 0 and below 1")),
};

/** A number from 0 to 1. */
export const probability: Kind<number> = {
  name: "number",
  type: "number",
  schema: pipe(finiteNumber, minValue(0, "be a probability"), maxValue(1, "be a probability")),
};

/** A port to listen at, or whether to listen at a free one. */
export const port: Kind<boolean | number> = {
  name: "port",
  type: "true, false or a port",
  schema: union(
    [boolean(), pipe(number(), safeInteger(), minValue(0), maxValue(65_535))],
    "be a port from 1 to 65535, or 0 for a free one",
  ),
};

/** True or false. */
export const flag: Kind<boolean> = {
  name: "flag",
  type: "true or false",
  schema: boolean("be true or false"),
};

/** One of the given texts. */
export function choice<const T extends string>(choices: readonly T[]): Kind<T> {
  const schema = picklist(choices, `be one of ${choices.join(", ")}`);
  return { name: "choice", type: choices.join(", "), schema, choices };
}

/** A text that is not empty. */
export const text: Kind<string> = {
  name: "text",
  type: "string",
  schema: pipe(string("be a string"), nonEmpty("not be empty")),
};

/** The name of a file. */
export const file: Kind<string> = {
  name: "text",
  type: "a file",
  schema: pipe(string("be the name of a file"), nonEmpty("be the name of a file")),
};

/** The name of a folder, or true for the default one. */
export const folderOrFlag: Kind<boolean | string, boolean | string> = {
  name: "folder",
  type: "true, false or a folder",
  schema: union([boolean(), pipe(string(), nonEmpty())], "be true or false"),
};

/** Accepts any value, for options that their use checks. */
const anything = custom<unknown>(() => true);

/** Names as an array, or separated by commas. */
const namesInFile = union([
  pipe(string(), regex(/^[^,\s]+( *, *[^,\s]+)*$/)),
  pipe(array(pipe(string(), regex(/^[^,\s]+$/))), nonEmpty()),
]);

/** Files or rows in memory, which their use checks; on the command line files. */
export const trainingData: Kind<TrainingData, string[]> = {
  name: "files",
  type: "a file, files or rows",
  schema: anything,
  inFile: union([pipe(string(), nonEmpty()), pipe(array(pipe(string(), nonEmpty())), nonEmpty())]),
};

/** Module names. `T` is the type of the library's option, which its use checks. */
export function moduleNames<T>(): Kind<T, string[]> {
  return { name: "names", type: "names", schema: anything, inFile: namesInFile };
}

/** The modules to adapt: a set by its name, or names. `T` is the type of the library's option, which its use checks. */
export function targets<T>(): Kind<T, string | string[]> {
  return { name: "targets", type: "names, all-linear or peft", schema: anything, inFile: namesInFile };
}

/** An initialisation of an adapter, which `inject` checks. */
export const initialisation: Kind<InitLoraWeights> = {
  name: "initialisation",
  type: "true, false or a name",
  schema: anything,
  inFile: union([
    boolean(),
    picklist(["gaussian", "orthogonal", "pissa", "olora", "eva"]),
    pipe(string(), regex(/^pissa_niter_\d+$/)),
  ]),
};

/** The interval between checkpoints: steps, a time, or never. */
export const interval: Kind<number | "never" | (string & {})> = {
  name: "interval",
  type: "steps, a time or never",
  schema: custom<number | string>(
    isInterval,
    'be a number of steps, a time such as "10m" (s, m or h), or "never"',
  ),
  inFile: union([
    pipe(number(), safeInteger(), minValue(0)),
    literal("never"),
    pipe(string(), regex(/^[1-9]\d{0,8}(\.\d{1,6})? ?[smh]$/)),
  ]),
};

function isInterval(value: unknown): boolean {
  try {
    parseSaveInterval(value as number | string);
    return true;
  } catch {
    return false;
  }
}

/** A memory limit: bytes, a size with a unit, or auto. */
export const memoryLimit: Kind<"auto" | number | (string & {}), number | "auto"> = {
  name: "size",
  type: "a size or auto",
  schema: custom<number | string>(
    (value) => value === "auto" || parseLimit(value) !== undefined,
    'be a number of bytes, a size such as "2GB", or "auto"',
  ),
  inFile: union([
    pipe(number(), safeInteger(), minValue(1)),
    literal("auto"),
    pipe(string(), regex(/^[1-9]\d{0,5}(\.\d{1,6})? ?([KkMmGg]?[Bb])?$/)),
  ]),
};

/** Returns the bytes of a memory limit; undefined if it is not a size. */
export function parseLimit(value: unknown): number | undefined {
  const size = typeof value === "string" ? parseSize(value) : value;
  return typeof size === "number" && Number.isSafeInteger(size) && size > 0 ? size : undefined;
}

const deviceNames = pipe(array(text.schema as GenericSchema<string>), nonEmpty("not be empty"));

/** The name of a device, or of several. The engine knows which exist. */
export const devices: Kind<string | readonly string[]> = {
  name: "devices",
  type: "a device or devices",
  schema: union([text.schema as GenericSchema<string>, deviceNames], "be the name of a device, or names"),
  inFile: union([
    picklist(["auto", "cpu", "gpu"]),
    pipe(string(), regex(/^(cpu|gpu(:\d+)?)(, *(cpu|gpu(:\d+)?))*$/)),
    pipe(array(pipe(string(), regex(/^(cpu|gpu(:\d+)?)$/))), nonEmpty()),
  ]),
};

const shareFault = "be whole numbers of at least 1, one for each device";
const wholeShare = pipe(number(shareFault), safeInteger(shareFault), minValue(1, shareFault));

/** Shares of several devices. */
export const shares: Kind<readonly number[]> = {
  name: "shares",
  type: "whole numbers",
  schema: pipe(array(wholeShare, shareFault), nonEmpty(shareFault)),
  inFile: union([
    pipe(string(), regex(/^[1-9]\d{0,5}(, *[1-9]\d{0,5})*$/)),
    pipe(array(wholeShare, shareFault), nonEmpty()),
  ]),
};

/** Two decays, each at least 0 and below 1. */
export const betas: Kind<readonly [number, number]> = {
  name: "text",
  type: "two numbers",
  schema: custom<readonly [number, number]>(
    (value) =>
      Array.isArray(value) &&
      value.length === 2 &&
      value.every((beta) => findFault(belowOne(), beta) === undefined),
    "be two numbers of at least 0 and below 1",
  ),
};

/** An abort signal. */
export const signal: Kind<AbortSignal> = {
  name: "text",
  type: "AbortSignal",
  schema: instance(AbortSignal, "be an AbortSignal"),
};

/** The ranks of a job. */
export const ranks: Kind<Ranks> = {
  name: "text",
  type: "Ranks",
  schema: custom<Ranks>(isRanks, "be the result of lowrank-mpi's connect()"),
};

/** An object of options. */
export function options<T>(): Kind<T> {
  return { name: "text", type: "options", schema: custom<T>(isPlain, "be an object of options") };
}

/** A value that its use checks, because the check needs the engine or a model. `type` describes it in tables. */
export function unchecked<T, Text = T>(type: string): Kind<T, Text> {
  return { name: "text", type, schema: anything };
}
