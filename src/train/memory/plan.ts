/** Decides whether a run fits into memory, and finds settings that fit. */
import { optionName, optionSetting } from "../../arguments/option-name.js";
import { formatSize } from "../../arguments/byte-size.js";
import { type Device, resolveDevice } from "../../device/device.js";
import { LowrankError } from "../../errors.js";
import { buildLikeness } from "../../models/files/likeness.js";
import { loadLocated } from "../../models/files/load.js";
import type { Located } from "../../models/files/locate.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import type { Tokenizer } from "../../models/tokenizer.js";
import type { MatmulPrecision } from "../../tensor/scope.js";
import type { Files } from "../prepare.js";
import type { Settings } from "../settings.js";
import type { Keepable } from "../changeable.js";
import { listChoices, type Changes } from "./choices.js";
import { chooseDryBatches } from "./dry-batches.js";
import { type DryRun, runDry, type PeakMemory } from "./dry-run.js";
import { listParts, type PartSettings } from "../replicas/shares.js";
import { measureAllowed } from "./free.js";
import { findHostShortage, formatHostShortage } from "./offloaded.js";

/** A run before it begins. */
export interface Planned {
  settings: Settings;
  files: Files;
  /** The model's location; undefined for a loaded model. */
  located: Located | undefined;
  /** The classes of the rows. */
  labels: readonly string[] | undefined;
  /** The chat template that overrides the model's own. */
  template: { text: string; where: string } | undefined;
  precision: MatmulPrecision;
  /** Whether the run is resumed. */
  resumed: boolean;
  /** The model's tokenizer, once it has been read. */
  tokenizer?: Tokenizer | undefined;
}

/** The memory of a run on one of its devices. */
export interface CountedDevice extends DryRun {
  device: Exclude<Device, "auto">;
  /** The limit in bytes; undefined if unknown. */
  limit: number | undefined;
}

/** Settings that fit. */
export interface Fitting {
  changes: Changes;
  /** The cost of each change. */
  costs: string[];
  held: PeakMemory;
  /** The memory of each further device. */
  further: CountedDevice[];
  /** Changed options that were given with other values. A run keeps given values, so that it does not fit. */
  given: Keepable[];
}

/** The memory of a run with its requested settings, on its first device. */
export interface MemoryPlan extends CountedDevice {
  /** The memory of each further device. */
  further: CountedDevice[];
  /** Whether the run fits on all devices; undefined without a limit. */
  fits: boolean | undefined;
  /** If it does not fit: settings that do, if any were found. */
  fitting: Fitting | undefined;
}

/**
 * Counts a run's memory, and searches for settings that fit if it does not. Returns undefined for a loaded model that
 * cannot be reproduced on a meta device. Sets `planned.tokenizer`, so that loading the model later does not read it again.
 *
 * Errors: errors of loading, of the data and of `inject`; `ERR_OUT_OF_MEMORY` if no settings are possible, for example
 * because a tensor exceeds the device's largest buffer; the signal's reason.
 */
export async function planMemory(planned: Planned): Promise<MemoryPlan | undefined> {
  const { settings, located } = planned;
  const { model } = settings;
  const devices = typeof model === "string" ? settings.devices.map(resolveDevice) : [model.device];
  const limits = devices.map((device) => measureAllowed(settings.memory, device));
  const place = (runs: readonly DryRun[]): [CountedDevice, ...CountedDevice[]] =>
    runs.map((run, i) => ({
      ...run,
      device: devices[i] as Exclude<Device, "auto">,
      limit: limits[i],
    })) as [CountedDevice, ...CountedDevice[]];
  let uncounted: unknown;
  const requested = await tryDryRuns(planned, {}).catch((error: unknown) => {
    // Other settings may avoid the tensor that is too large.
    if (!isShort(error) || settings.memory === undefined) throw error;
    uncounted = error;
    return null;
  });
  if (requested === undefined) return undefined;
  const plan = { fits: undefined, fitting: undefined };
  if (requested !== null) {
    const [first, ...further] = place(requested);
    const fits = fitsAll([first, ...further], settings);
    if (fits !== false) return { ...plan, ...first, further, fits };
  }
  const length = requested?.[0]?.held.batch[1] ?? settings.maxLength;
  const counted = new Map<string, DryRun[] | undefined>();
  const count = async (changes: Changes): Promise<DryRun[] | undefined> => {
    const key = JSON.stringify(changes);
    if (!counted.has(key)) counted.set(key, await tryDryRuns(planned, changes).catch(skipImpossible));
    return counted.get(key);
  };
  // First with given options kept; if nothing fits, without them, to report which of them prevent a fit.
  for (const kept of settings.given.length === 0 ? [[]] : [settings.given, []]) {
    const known = { path: located?.path, length, resumed: planned.resumed, kept };
    for (const { changes, costs } of listChoices(settings, known)) {
      const runs = await count(changes);
      if (runs === undefined) continue;
      const [first, ...further] = place(runs);
      if (fitsAll([first, ...further], settings) === false) continue;
      const given = settings.given.filter((name) => name in changes && changes[name] !== settings[name]);
      const fitting = { changes, costs, held: first.held, further, given };
      const [shown, ...others] = place(requested ?? runs);
      return { ...plan, ...shown, further: others, fits: false, fitting };
    }
  }
  if (requested === null) throw uncounted;
  const [first, ...further] = place(requested);
  return { ...plan, ...first, further, fits: false };
}

/**
 * Whether a run fits on each device, and its offloaded weights on the host; undefined if no limit is known. Devices whose free memory is known share the
 * system's memory.
 */
function fitsAll(all: readonly CountedDevice[], settings: Settings): boolean | undefined {
  if (findHostShortage(all) !== undefined) return false;
  const limited = all.flatMap(({ held, limit }) =>
    limit === undefined ? [] : [{ needed: computeNeeded(held, settings), limit }],
  );
  if (limited.length === 0) return undefined;
  if (typeof settings.memory === "number") return limited.every(({ needed, limit }) => needed <= limit);
  const needed = limited.reduce((sum, device) => sum + device.needed, 0);
  return needed <= Math.min(...limited.map(({ limit }) => limit));
}

/** Whether an error is a lack of memory. */
export function isShort(error: unknown): boolean {
  return error instanceof LowrankError && error.code === "ERR_OUT_OF_MEMORY";
}

/**
 * Returns the bytes that must fit into the limit. Offloaded weights in host memory count where the limit is the free
 * memory of the system. Without `memory`, mapped files do not count, because the system can reclaim them. The weights of a
 * loaded model are already allocated.
 */
export function computeNeeded(
  { peakBytes, mapped, weights, offloaded }: PeakMemory,
  { memory, model }: Settings,
): number {
  if (typeof memory === "number") return peakBytes + mapped;
  if (typeof model !== "string") return peakBytes + mapped - weights;
  return peakBytes + (memory === "auto" ? mapped : 0) + (offloaded?.inMemory ?? 0);
}

/** Errors of impossible settings. */
const UNBUILT = ["ERR_DTYPE", "ERR_OPTION", "ERR_OUT_OF_MEMORY", "ERR_NO_TRAINED_TOKENS"];

/** Skips impossible settings, such as blocks that do not divide a row, or rows truncated before their trained tokens. */
function skipImpossible(error: unknown): undefined {
  if (error instanceof LowrankError && UNBUILT.includes(error.code)) return undefined;
  throw error;
}

/** Counts the memory of each device with `changes`. Undefined as for `tryDryRun`. */
async function tryDryRuns(planned: Planned, changes: Changes): Promise<DryRun[] | undefined> {
  const settings = { ...planned.settings, ...changes };
  const runs: DryRun[] = [];
  for (const part of listParts(settings)) {
    const run = await tryDryRun(planned, part);
    planned.tokenizer ??= run?.tokenizer;
    if (run === undefined) return undefined;
    runs.push({ held: run.held, cost: run.cost });
  }
  return runs;
}

/** Runs a dry run on one of the devices. Undefined for a loaded model that cannot be reproduced on a meta device. */
async function tryDryRun(
  planned: Planned,
  settings: PartSettings,
): Promise<(DryRun & Pick<Planned, "tokenizer">) | undefined> {
  const { files, labels, located, template, precision } = planned;
  const { model: given } = settings;
  let unlike = false;
  const load = async (device: Exclude<Device, "auto">): Promise<PretrainedModel> => {
    const model =
      typeof given === "string"
        ? await loadLocated(located as Located, {
            device,
            onNotice: () => {},
            tokenizer: planned.tokenizer,
            offloadWeights: settings.offloadWeights,
            ...(settings.dtype !== undefined && { dtype: settings.dtype }),
            ...(settings.quantize !== undefined && { quantize: settings.quantize }),
            ...(settings.signal !== undefined && { signal: settings.signal }),
            ...(labels !== undefined && { task: "sequence-classification", numLabels: labels.length }),
          })
        : await buildLikeness(given, device);
    unlike = model === undefined;
    if (model === undefined) throw new LowrankError("ERR_UNSUPPORTED_MODEL", "nothing is like the model");
    planned.tokenizer ??= model.tokenizer;
    if (template !== undefined) model.tokenizer?.setChatTemplate(template.text, template.where);
    return model;
  };
  const batches = (model: PretrainedModel, count: number) =>
    chooseDryBatches(model, files, labels, settings, count);
  try {
    const run = await runDry({ settings, precision, load, batches });
    return { ...run, tokenizer: planned.tokenizer };
  } catch (error) {
    if (unlike) return undefined;
    throw error;
  }
}

/** Returns the error for a run that does not fit, including settings that do. */
export function createTooLargeError(
  { held, device, limit = 0, further, fitting }: MemoryPlan,
  { settings, resumed }: Planned,
): LowrankError {
  const { memory } = settings;
  const all = [{ held, device }, ...further];
  const shortage = findHostShortage(all);
  if (shortage !== undefined) {
    return new LowrankError(
      "ERR_OUT_OF_MEMORY",
      `finetune: the run ${formatHostShortage(shortage)}; ${suggestInstead(settings, fitting, resumed)}`,
    );
  }
  const may = formatSize(limit);
  const needs = all.map(
    (counted) =>
      `${formatSize(computeNeeded(counted.held, settings))} on ${counted.device} (${formatUse(counted.held)})`,
  );
  const what = `the run would need ${needs.join(" and ")}`;
  const bound =
    memory === undefined
      ? `${may} are free`
      : memory === "auto"
        ? `${optionSetting("memory", "auto")} is ${may} now`
        : `${optionName("memory")} is ${may}`;
  return new LowrankError(
    "ERR_OUT_OF_MEMORY",
    `finetune: ${what}, and ${bound}; ${suggestInstead(settings, fitting, resumed)}`,
  );
}

/** Describes how to make a run fit. */
function suggestInstead(settings: Settings, fitting: Fitting | undefined, resumed: boolean): string {
  if (fitting === undefined) {
    return resumed
      ? `a resumed run keeps its settings: free memory, or give it more with ${optionName("memory")}`
      : `no settings were found that fit: use a smaller model or a lower rank, or give it more with ${optionName("memory")}`;
  }
  const { changes, given, held, further } = fitting;
  const needs = [held, ...further.map((device) => device.held)].map((memory) =>
    computeNeeded(memory, settings),
  );
  const fits = `${formatChanges(changes)} take ${needs.map(formatSize).join(" and ")}`;
  if (given.length === 0) return `${fits}; ${optionSetting("memory", "auto")} chooses them automatically`;
  const values = Object.fromEntries(given.map((name) => [name, settings[name]]));
  const stand = given.length === 1 ? "was given, is kept, and stands" : "were given, are kept, and stand";
  return `${formatChanges(values)} ${stand} in the way: ${fits}`;
}

/** Lists the memory by purpose. */
function formatUse({ weights, mapped, adapters, optimizer, activations, offloaded }: PeakMemory): string {
  const location =
    mapped === 0
      ? ""
      : mapped === weights
        ? " in their file"
        : `, ${formatSize(mapped)} of them in their file`;
  return (
    `weights ${formatSize(weights)}${location}, adapters ${formatSize(adapters)}, optimizer ${formatSize(optimizer)}, ` +
    `activations ${formatSize(activations)}` +
    (offloaded === undefined || offloaded.inMemory === 0
      ? ""
      : `, and ${formatSize(offloaded.inMemory)} of offloaded weights`)
  );
}

/** Formats options and their values as the user writes them. */
function formatChanges(changes: Changes): string {
  return Object.entries(changes)
    .map(([name, value]) => optionSetting(name, value))
    .join(", ");
}
