/** The space of a sweep: the values of options, from which trials are made by grid or by random draws. */
import { isPlain } from "../../arguments/check.js";
import { optionName } from "../../arguments/option-name.js";
import { didYouMean } from "../../arguments/suggest.js";
import { createSplitmix32 } from "../../data/shuffle.js";
import { LowrankError } from "../../errors.js";
import { createRefusal } from "../../refusals/refusal.js";
import { SWEEP_REFUSALS } from "../../refusals/sweep.js";
import type { FinetuneOptions } from "../options.js";
import { type AnyGroup, type AnyOption, isGroup } from "../options/entry.js";
import { checkKind, findFault } from "../options/kinds.js";
import { OPTIONS } from "../options/table.js";

/** A range of numbers for random draws; whole numbers for an option that takes those. */
export interface Range {
  /** The lowest value. */
  min: number;
  /** The highest value. */
  max: number;
  /** Whether the logarithm of the value is drawn uniformly, as for learning rates. False. */
  log?: boolean | undefined;
}

/** The values of one option: a list, or for random draws a range. */
export type Values<T> = readonly T[] | Range;

/** The values of each option of a group. */
export type ValuesOf<Group, Names extends keyof Group> = {
  [Name in Names]?: Values<NonNullable<Group[Name]>> | undefined;
};

type Lora = NonNullable<FinetuneOptions["lora"]>;
type OptimizerOptions = NonNullable<FinetuneOptions["optimizer"]>;

/** The options that differ among the trials of a sweep, each with its values. */
export interface Space extends ValuesOf<
  FinetuneOptions,
  "seed" | "schedule" | "warmup" | "clipNorm" | "steps" | "epochs" | "batchSize" | "gradientAccumulation"
> {
  /** Options of the adapter. */
  lora?: ValuesOf<Lora, Extract<(typeof LORA)[number], keyof Lora>> | undefined;
  /** Options of the optimizer. */
  optimizer?: ValuesOf<OptimizerOptions, (typeof OPTIMIZER)[number]> | undefined;
}

const LORA = [
  "r",
  "loraAlpha",
  "loraDropout",
  "targetModules",
  "useRslora",
  "useDora",
  "initLoraWeights",
  "bias",
  "modulesToSave",
] as const;
const OPTIMIZER = ["type", "lr", "momentum", "betas", "eps", "loraPlusRatio", "weightDecay"] as const;

/** The paths of the options that a space may contain. */
export const SPACE_OPTIONS: readonly string[] = [
  ...LORA.map((name) => `lora.${name}`),
  ...OPTIMIZER.map((name) => `optimizer.${name}`),
  "schedule",
  "warmup",
  "clipNorm",
  "steps",
  "epochs",
  "batchSize",
  "gradientAccumulation",
  "seed",
];

/** One option of a space. */
export interface Axis {
  /** The path of the option: `optimizer.lr`. */
  path: string;
  values: Values<unknown>;
}

/** The values of one trial, by the paths of the options. */
export type TrialValues = Readonly<Record<string, unknown>>;

/** Throws `ERR_OPTION` with the name of the option for a space that is empty or has invalid values. */
export function parseSpace(space: unknown): Axis[] {
  if (!isPlain(space)) refuse("the space must be an object with the values of options");
  const axes = listAxes(space as Record<string, unknown>, OPTIONS, "");
  if (axes.length === 0)
    refuse(`the space is empty; give the values of at least one option, such as ${optionName("lora.r")}`);
  return axes;
}

function listAxes(
  space: Record<string, unknown>,
  table: Readonly<Record<string, AnyOption | AnyGroup>>,
  group: string,
): Axis[] {
  return Object.entries(space).flatMap(([name, values]): Axis[] => {
    if (values === undefined) return [];
    const path = group + name;
    const entry = table[name];
    if (entry !== undefined && isGroup(entry)) {
      if (!isPlain(values)) refuse(`${path} in the space must be an object with the values of options`);
      return listAxes(values as Record<string, unknown>, entry.fields, `${path}.`);
    }
    if (!SPACE_OPTIONS.includes(path)) {
      if (entry !== undefined) throw createRefusal(SWEEP_REFUSALS.sharedOption, "sweep", optionName(path));
      refuse(`there is no option ${path}${didYouMean(path, SPACE_OPTIONS)} for the space`);
    }
    checkValues(path, entry as AnyOption, values);
    return [{ path, values: values as Values<unknown> }];
  });
}

function checkValues(path: string, entry: AnyOption, values: unknown): void {
  const name = optionName(path);
  if (Array.isArray(values)) {
    if (values.length === 0) refuse(`${name} in the space has no values`);
    for (const value of values) checkKind(path, entry.kind, value);
    const texts = values.map((value) => JSON.stringify(value));
    const twice = texts.find((text, i) => texts.indexOf(text) !== i);
    if (twice !== undefined) refuse(`${name} in the space has the value ${twice} twice`);
    return;
  }
  const what = `${name} in the space must be a list of values, or a range with min and max`;
  if (!isPlain(values)) refuse(what);
  const { min, max, log = false, ...rest } = values as Record<string, unknown>;
  const [other] = Object.keys(rest);
  if (other !== undefined)
    refuse(`${name} in the space has an unknown key ${other}; a range has min, max and log`);
  if (entry.kind.name !== "number")
    refuse(`${name} in the space must be a list of values; only numbers have ranges`);
  if (typeof min !== "number" || typeof max !== "number") refuse(what);
  for (const value of [min, max]) checkKind(path, entry.kind, value);
  if (!(min < max)) refuse(`${name} in the space: min is ${min}, and max ${max}; max must be above min`);
  if (typeof log !== "boolean") refuse(`${name} in the space: log must be true or false`);
  if (log && min <= 0) refuse(`${name} in the space: with log, min must be above 0, got ${min}`);
}

/** The random draws of a sweep. */
export interface Draws {
  count: number;
  seed: number;
}

/** Returns the values of each trial: all combinations of the lists, or `draws` distinct ones. Throws `ERR_OPTION`. */
export function makeTrials(axes: readonly Axis[], draws: Draws | undefined): TrialValues[] {
  if (draws !== undefined) return drawTrials(axes, draws);
  let all: TrialValues[] = [{}];
  for (const { path, values } of axes) {
    if (!Array.isArray(values))
      refuse(
        `${optionName(path)} in the space is a range, and a grid has lists only; give a list, or the number of random draws with ${optionName("trials")}`,
      );
    all = all.flatMap((point) => (values as unknown[]).map((value) => ({ ...point, [path]: value })));
  }
  return all;
}

/** The number of draws per trial after which a space is taken to have too few combinations. */
const MOST_DRAWS = 100;

function drawTrials(axes: readonly Axis[], { count, seed }: Draws): TrialValues[] {
  const sizes = axes.map(({ values }) => (Array.isArray(values) ? values.length : Infinity));
  const combinations = sizes.reduce((product, size) => product * size, 1);
  if (count > combinations)
    refuse(
      `${optionName("trials")} is ${count}, and the space has only ${combinations} combinations; lower it, or leave it out for all of them`,
    );
  const next = createSplitmix32(createSplitmix32(seed)());
  const found = new Map<string, TrialValues>();
  for (let tries = 0; found.size < count && tries < MOST_DRAWS * count; tries++) {
    const values = Object.fromEntries(axes.map((axis) => [axis.path, draw(axis, next)]));
    found.set(JSON.stringify(values), found.get(JSON.stringify(values)) ?? values);
  }
  if (found.size < count)
    refuse(
      `${optionName("trials")} is ${count}, and ${MOST_DRAWS * count} draws from the space gave only ${found.size} different combinations (a range gives whole numbers, or numbers of three digits); lower it, or widen the space`,
    );
  return [...found.values()];
}

function draw({ path, values }: Axis, next: () => number): unknown {
  const share = next() / 2 ** 32;
  if (Array.isArray(values)) return values[Math.floor(share * values.length)];
  const { min, max, log = false } = values as Range;
  if (isWhole(path)) {
    // Each whole number has an interval of length 1 around it.
    const value = log ? interpolate(min, max + 1, share, true) : min + share * (max + 1 - min);
    return Math.min(Math.floor(value), max);
  }
  // Three digits are enough to compare trials, and readable.
  const rounded = Number(interpolate(min, max, share, log).toPrecision(3));
  return Math.min(Math.max(rounded, min), max);
}

function interpolate(min: number, max: number, share: number, log: boolean): number {
  return log ? min * (max / min) ** share : min + (max - min) * share;
}

/** Whether an option takes whole numbers only. */
function isWhole(path: string): boolean {
  const { kind } = findEntry(path);
  return findFault(kind, 1) === undefined && findFault(kind, 1.5) !== undefined;
}

function findEntry(path: string): AnyOption {
  const [first = "", second] = path.split(".");
  const entry = (OPTIONS as Readonly<Record<string, AnyOption | AnyGroup>>)[first] as AnyOption | AnyGroup;
  return (isGroup(entry) ? entry.fields[second as string] : entry) as AnyOption;
}

/** Returns options with the values of a trial. */
export function applyValues(options: FinetuneOptions, values: TrialValues): FinetuneOptions {
  const result = { ...options } as Record<string, unknown>;
  for (const [path, value] of Object.entries(values)) {
    const [first = "", second] = path.split(".");
    result[first] = second === undefined ? value : { ...(result[first] as object), [second]: value };
  }
  return result as FinetuneOptions;
}

/** Returns the value of an option by its path. */
export function readPath(options: FinetuneOptions, path: string): unknown {
  const [first = "", second] = path.split(".");
  const value = (options as Record<string, unknown>)[first];
  return second === undefined ? value : (value as Record<string, unknown> | undefined)?.[second];
}

function refuse(what: string): never {
  throw new LowrankError("ERR_OPTION", `sweep: ${what}`);
}
