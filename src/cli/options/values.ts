/** Parses and validates option values. An error ends the command with status 2. */
import { InvalidArgumentError } from "commander";
import { parseSize } from "../../arguments/byte-size.js";
import { isShift, SHIFT_RANGE } from "../../arguments/logit-shift.js";
import { parseSaveInterval } from "../../train/options/save-interval.js";
import { checkInit, type InitLoraWeights } from "../../lora/options/init-weights.js";
import { didYouMean } from "../../arguments/suggest.js";

type Parser<T> = (text: string) => T;

function parseNumber(text: string): number {
  const value = text.trim() === "" ? NaN : Number(text);
  if (Number.isNaN(value)) throw new InvalidArgumentError(`"${text}" is not a number.`);
  if (!Number.isFinite(value)) throw new InvalidArgumentError(`"${text}" is not a finite number.`);
  return value;
}

/** Parses a number for which `findFault` returns undefined; otherwise it returns the fault, such as `be above 0`. */
export function createNumberParser(findFault: (value: number) => string | undefined): Parser<number> {
  return (text) => {
    const value = parseNumber(text);
    const fault = findFault(value);
    if (fault !== undefined) throw new InvalidArgumentError(`It must ${fault}, got ${text}.`);
    return value;
  };
}

function createRangeParser(holds: (value: number) => boolean, must: string): Parser<number> {
  return (text) => {
    const value = parseNumber(text);
    if (!holds(value)) throw new InvalidArgumentError(`It must be ${must}, got ${text}.`);
    return value;
  };
}

/** 1, 2, … */
export const parseCount = createRangeParser(
  (value) => Number.isSafeInteger(value) && value >= 1,
  "a whole number of at least 1",
);
/** 2, 3, …: fewer tokens leave nothing to predict. */
export const parseLength = createRangeParser(
  (value) => Number.isSafeInteger(value) && value >= 2,
  "a whole number of at least 2",
);
/** 0, 1, 2, … */
export const parseCountFromZero = createRangeParser(
  (value) => Number.isSafeInteger(value) && value >= 0,
  "a whole number of at least 0",
);
/** A port of this machine; 0 for any free one. */
export const parsePort = createRangeParser(
  (value) => Number.isSafeInteger(value) && value >= 0 && value <= 65_535,
  "a port, from 0 to 65535",
);
export const parsePositive = createRangeParser((value) => value > 0, "above 0");
export const parseNotNegative = createRangeParser((value) => value >= 0, "0 or above");
export const parseFraction = createRangeParser((value) => value >= 0 && value <= 1, "from 0 to 1");
/** A number that is added to logits. */
export const parseShift = createRangeParser(isShift, SHIFT_RANGE);
export const parseProbability = createRangeParser(
  (value) => value > 0 && value <= 1,
  "above 0 and at most 1",
);

/** Parses a number of bytes with decimal units, such as `2GB` or `500MB`. */
export function parseByteSize(text: string): number {
  const size = parseSize(text);
  if (size !== undefined) return size;
  throw new InvalidArgumentError("It must be a size, such as 2GB or 500MB.");
}

/** Parses a memory limit: a number of bytes, or `auto`. */
export function parseMemory(text: string): number | "auto" {
  if (text === "auto") return text;
  const size = parseSize(text);
  if (size !== undefined) return size;
  throw new InvalidArgumentError("It must be a size, such as 2GB or 500MB, or auto.");
}

/** Parses a checkpoint interval: steps, a time such as `10m`, or `never`. */
export function parseSaveEvery(text: string): number | string {
  const when = /^\d+$/.test(text) ? Number(text) : text;
  try {
    parseSaveInterval(when);
    return when;
  } catch {
    throw new InvalidArgumentError("It must be a number of steps, a time such as 10m (s, m or h), or never.");
  }
}

/** Parses `a,b` to [a, b]. */
export function parseList(text: string): string[] {
  const names = text.split(",").map((name) => name.trim());
  if (names.includes(""))
    throw new InvalidArgumentError("It must be a list of names, such as q_proj,v_proj.");
  return names;
}

/** Parses the modules to adapt: the name of a set, or a list. */
export function parseTargets(text: string): string | string[] {
  return text === "all-linear" || text === "peft" ? text : parseList(text);
}

/** Parses an initialisation. */
export function parseInit(text: string): InitLoraWeights {
  const how = text === "true" || text === "false" ? text === "true" : text;
  try {
    checkInit(how);
    return how;
  } catch (error) {
    throw new InvalidArgumentError(`${(error as Error).message}.`);
  }
}

export function parseDevice(text: string): string {
  if (/^(auto|cpu|gpu|gpu:\d+)$/.test(text)) return text;
  const near = didYouMean(text, ["auto", "cpu", "gpu", "gpu:0"]);
  throw new InvalidArgumentError(`Unknown device "${text}"${near}; use auto, cpu, gpu or gpu:N.`);
}

/** Parses the name of a device, or several names with commas. */
export function parseDevices(text: string): string | string[] {
  if (!text.includes(",")) return parseDevice(text);
  return text.split(",").map((name) => parseDevice(name.trim()));
}

/** Parses shares, such as 3,1. */
export function parseShares(text: string): number[] {
  const numbers = text.split(",").map((part) => (/^ *[1-9]\d{0,5} *$/.test(part) ? Number(part) : 0));
  if (numbers.includes(0))
    throw new InvalidArgumentError("It must be whole numbers of at least 1, such as 3,1.");
  return numbers;
}

/** Collects the values of a repeatable option. */
export function collect(text: string, before: string[] | undefined): string[] {
  return [...(before ?? []), text];
}

/** Collects the biases of a repeatable option by token id, such as `15=-100`. */
export function collectBiases(
  text: string,
  before: Readonly<Record<string, number>> = {},
): Record<string, number> {
  const [, id, bias] = /^(0|[1-9]\d{0,9})=(.+)$/.exec(text) ?? [];
  if (id === undefined || bias === undefined)
    throw new InvalidArgumentError(`It must be a token id and a number, such as 15=-100, got ${text}.`);
  if (Object.hasOwn(before, id)) throw new InvalidArgumentError(`Token ${id} is given twice; give it once.`);
  return { ...before, [id]: parseShift(bias) };
}

/** The parsers of options that may be given several times. */
export const REPEATABLE: ReadonlySet<unknown> = new Set([collect, collectBiases]);

/** Parses `true` or `false`. */
export function parseBoolean(text: string): boolean {
  if (text !== "true" && text !== "false")
    throw new InvalidArgumentError(`It must be true or false, got ${text}.`);
  return text === "true";
}
