/** The options of a sweep, and the trials that follow from them. */
import { join } from "node:path";

import { checkKnownOptions, isPlain } from "../../arguments/check.js";
import { optionName } from "../../arguments/option-name.js";
import { LowrankError } from "../../errors.js";
import { createRefusal } from "../../refusals/refusal.js";
import { SWEEP_REFUSALS } from "../../refusals/sweep.js";
import type { FinetuneOptions } from "../options.js";
import { checkCount, checkKind, share, whole } from "../options/kinds.js";
import { checkKinds, DEFAULT_OUTPUT, listOptions, parseSettings, type Settings } from "../settings.js";
import { completeFromAdapter } from "../start-adapter.js";
import { formatValues } from "./format-values.js";
import { applyValues, makeTrials, parseSpace, readPath, type Space, type TrialValues } from "./space.js";

/** When a sweep stops its worst trials. */
export interface HalvingOptions {
  /** The number of steps between two comparisons. With held-out rows a multiple of `evalEvery`. */
  every: number;
  /** The share of the trials that continue after each comparison, above 0 and below 1; 0.5. */
  keep?: number | undefined;
}

/**
 * The options of `sweep`: the options of `finetune`, which all trials share, and the options of the sweep. `device` may
 * name several devices, which train different trials.
 */
export interface SweepOptions extends Omit<
  FinetuneOptions,
  "resume" | "dashboard" | "profile" | "deviceShares" | "ranks" | "deterministic"
> {
  /** The options that differ among the trials, with their values: lists, or ranges for random draws. */
  space: Space;
  /** The number of random draws from the space; by default all combinations of its lists. */
  trials?: number | undefined;
  /** The seed of the random draws; 0. */
  spaceSeed?: number | undefined;
  /** Stops the worst trials early; by default every trial runs to its end. */
  halving?: HalvingOptions | undefined;
  /** The most adapters that train side by side; by default as many as fit into memory, and at most 16. */
  sideBySide?: number | undefined;
}

/** One trial of a sweep. */
export interface Trial {
  /** `trial-001`, …; the name of its folder. */
  name: string;
  values: TrialValues;
  settings: Settings;
}

/** A validated sweep. */
export interface ParsedSweep {
  trials: Trial[];
  /** The settings of the first trial, for options that all trials share. */
  common: Settings;
  output: string;
  halving: Required<HalvingOptions> | undefined;
  sideBySide: number | undefined;
}

const OWN = ["space", "trials", "spaceSeed", "halving", "sideBySide"] as const;

/** Throws `ERR_OPTION`, naming the option and its value, and the errors of `completeFromAdapter`. */
export function parseSweep(options: SweepOptions): ParsedSweep {
  if (!isPlain(options)) refuse("sweep takes an object of options, with a model, data and a space");
  const { space, trials, spaceSeed = 0, halving, sideBySide, ...rest } = options;
  const shared: FinetuneOptions = rest;
  refuseOptions(shared);
  checkKinds(shared);
  for (const name of ["model", "data"] as const)
    if (shared[name] === undefined && !(name === "model" && shared.adapter !== undefined))
      refuse(`sweep takes ${optionName(name)}`);
  if (shared.model !== undefined && typeof shared.model !== "string")
    throw createRefusal(SWEEP_REFUSALS.loadedModel, "sweep");
  checkCount("trials", trials);
  checkCount("sideBySide", sideBySide);
  checkKind("spaceSeed", whole(0), spaceSeed);
  const axes = parseSpace(space ?? {});
  const twice = axes.find(({ path }) => readPath(shared, path) !== undefined);
  if (twice !== undefined)
    refuse(`${optionName(twice.path)} is in the space, and is given for all trials, too; give one of them`);
  const draws = trials === undefined ? undefined : { count: trials, seed: spaceSeed };
  const output = shared.output ?? DEFAULT_OUTPUT;
  const parsed = makeTrials(axes, draws).map((values, i): Trial => {
    const name = `trial-${String(i + 1).padStart(3, "0")}`;
    const trialOptions = { ...applyValues(shared, values), output: join(output, name) };
    return { name, values, settings: parseTrial(trialOptions, values) };
  });
  const common = (parsed[0] as Trial).settings;
  return {
    trials: parsed,
    common,
    output,
    sideBySide,
    halving: parseHalving(halving, common),
  };
}

function refuseOptions(options: FinetuneOptions): void {
  const { resume = false, dashboard = false, profile } = options;
  if (resume !== false) throw createRefusal(SWEEP_REFUSALS.resumedSweep, "sweep");
  if (dashboard !== false || profile !== undefined) throw createRefusal(SWEEP_REFUSALS.watchedSweep, "sweep");
  if ((options.deviceShares ?? options.ranks ?? options.deterministic) !== undefined)
    throw createRefusal(SWEEP_REFUSALS.dividedSweep, "sweep");
}

/** Parses the options of a trial on the first device. Errors that only some values cause name these values. */
function parseTrial(options: FinetuneOptions, values: TrialValues): Settings {
  const devices = typeof options.device === "object" ? options.device : [options.device ?? "auto"];
  try {
    const settings = parseSettings(completeFromAdapter({ ...options, device: devices[0] }));
    return { ...settings, devices: devices as Settings["devices"] };
  } catch (error) {
    if (!(error instanceof LowrankError)) throw error;
    throw new LowrankError(error.code, `${error.message} (in the trial with ${formatValues(values)})`, {
      cause: error,
    });
  }
}

function parseHalving(
  given: HalvingOptions | undefined,
  { evalEvery, evalData, evalSplit, steps }: Settings,
): Required<HalvingOptions> | undefined {
  if (given === undefined) return undefined;
  const { every, keep = 0.5 } = checkKnownOptions("sweep: halving", given, ["every", "keep"]);
  checkKind("halving.every", whole(2), every);
  checkKind("halving.keep", share, keep);
  const hasEvaluation = (evalData ?? evalSplit) !== undefined;
  if (hasEvaluation && (evalEvery === undefined || every % evalEvery !== 0))
    refuse(
      `${optionName("halving.every")} is ${every}, and the trials are compared by their held-out losses; give ${optionName("evalEvery")} a divisor of it`,
    );
  if (steps !== undefined && every >= steps)
    refuse(
      `${optionName("halving.every")} is ${every}, and the trials end after ${steps} steps, before any comparison; give a smaller number, or leave ${optionName("halving")} out`,
    );
  return { every, keep };
}

/** Options that do not affect a trial's result, which may differ when a sweep is continued. */
const FREE = [
  "output",
  "offline",
  "overwrite",
  "memory",
  "device",
  "deviceShares",
  "threads",
  "priority",
  "saveEvery",
  "keep",
  "log",
  "signal",
];

/** Returns the recorded options of a trial that decide its result. */
export function listDecidingOptions(settings: Settings): Record<string, unknown> {
  const all = Object.entries(listOptions(settings)).filter(([name]) => !FREE.includes(name));
  return JSON.parse(JSON.stringify(Object.fromEntries(all))) as Record<string, unknown>;
}

export { OWN as SWEEP_OPTIONS };

function refuse(what: string): never {
  throw new LowrankError("ERR_OPTION", what);
}
