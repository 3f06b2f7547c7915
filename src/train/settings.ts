/** Validates and completes `finetune`'s options before anything is read or loaded. */
import {
  isPlain,
  checkList,
  checkKnownOptions,
  refuse as refuseKind,
  checkText,
} from "../arguments/check.js";
import { checkThreads } from "../device/cpu-use.js";
import { listFiles, type TrainingData, isFiles, isRows } from "../data/given.js";
import { STANDARD_INPUT } from "../data/source/source.js";
import type { Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import type { InjectOptions } from "../lora/index.js";
import { movesBase } from "../lora/options/init-weights.js";
import { isModule } from "../nn/module.js";
import { PretrainedModel } from "../models/pretrained.js";
import { optionName } from "../arguments/option-name.js";
import type { Ranks } from "../ranks/ranks.js";
import type { MatmulPrecision } from "../tensor/scope.js";
import { listGiven, isLeftOpen, type Keepable } from "./changeable.js";
import type { FinetuneOptions } from "./options.js";
import {
  type AnyGroup,
  type AnyOption,
  type CompletedOf,
  isGroup,
  type OptionsOf,
  type Table,
} from "./options/entry.js";
import { checkKind, parseLimit } from "./options/kinds.js";
import { OPTIMIZER_DEFAULTS, type OptimizerSettings } from "./options/optimizer-defaults.js";
import { OPTIONS } from "./options/table.js";
import { TRAINING_REFUSALS } from "../refusals/training.js";
import { createRefusal } from "../refusals/refusal.js";

/** The default output folder. */
export const DEFAULT_OUTPUT = OPTIONS.output.default;

/** The options that another form replaces in a run's settings, or that only the start of a run uses. */
type Replaced =
  | "model"
  | "data"
  | "lora"
  | "optimizer"
  | "clipNorm"
  | "memory"
  | "device"
  | "deviceShares"
  | "ranks"
  | "resume"
  | "dashboard";

/** The options of a run with their defaults, validated. */
export interface Settings extends Omit<CompletedOf<typeof OPTIONS>, Replaced> {
  model: string | PretrainedModel;
  data: TrainingData;
  lora: InjectOptions & { r: number; loraAlpha: number };
  optimizer: OptimizerSettings;
  /** Undefined if A and B have the same learning rate. */
  loraPlusRatio: number | undefined;
  /** Undefined disables clipping. */
  clipNorm: number | undefined;
  /** The options that the caller set and that `memory` must therefore not change. */
  given: readonly Keepable[];
  /** The memory limit; undefined changes no options. */
  memory: number | "auto" | undefined;
  /** The precision that the caller requested; undefined if it follows from other options. */
  askedPrecision: MatmulPrecision | undefined;
  /** The device that updates the adapter: the first of `devices`. */
  device: Device;
  devices: readonly Device[];
  /** The shares of several devices in the rows of a step; undefined until they are measured, and for one device. */
  deviceShares: readonly number[] | undefined;
  /** Undefined for one process. */
  ranks: Ranks | undefined;
}

/** Throws `ERR_OPTION`, naming the option and its value. */
export function parseSettings(options: FinetuneOptions): Settings {
  checkKinds(options);
  const { model, data } = options;
  if (model === undefined || data === undefined) refuse("finetune takes a model and data");
  if (typeof model !== "string" && (options.revision ?? options.offline) !== undefined)
    throw createRefusal(TRAINING_REFUSALS.revisionOfLoaded, "finetune");
  checkTogether(options);
  const { resume: _, dashboard: _dashboard, ...completed } = complete(options, OPTIONS);
  const { lora = {}, optimizer = {}, threads, deviceShares, ranks } = options;
  const devices = parseDevices(completed.device, options);
  const { r, loraDropout, targetModules } = OPTIONS.lora.fields;
  const rank = lora.r ?? r.default;
  return {
    ...completed,
    model,
    data,
    lora: {
      targetModules: targetModules.default,
      ...lora,
      r: rank,
      loraAlpha: lora.loraAlpha ?? 2 * rank,
      loraDropout: lora.loraDropout ?? loraDropout.default,
    },
    optimizer: parseOptimizer(optimizer),
    loraPlusRatio: optimizer.loraPlusRatio,
    clipNorm: completed.clipNorm === 0 ? undefined : completed.clipNorm,
    saveEvery: completed.saveEvery === 0 ? "never" : completed.saveEvery,
    given: listGiven(options),
    askedPrecision: isLeftOpen(options, "matmulPrecision") ? undefined : options.matmulPrecision,
    memory: completed.memory === "auto" ? "auto" : parseLimit(completed.memory),
    device: devices[0] as Device,
    devices,
    deviceShares,
    ranks: ranks !== undefined && ranks.size > 1 ? ranks : undefined,
    threads: threads === undefined ? undefined : checkThreads("finetune", threads),
  };
}

/** Returns the devices. Throws `ERR_OPTION` for devices or shares that do not go together. */
function parseDevices(given: string | readonly string[], options: FinetuneOptions): readonly Device[] {
  const devices = (typeof given === "string" ? [given] : given) as readonly Device[];
  const { model, deviceShares, lora } = options;
  if (deviceShares !== undefined && deviceShares.length !== devices.length)
    refuse(
      `${optionName("deviceShares")} has ${deviceShares.length} shares, and ${optionName("device")} names ${devices.length === 1 ? "one device" : `${devices.length} devices`}: give one share for each of several devices`,
    );
  if (devices.length === 1) return devices;
  const open = devices.find((device) => device === "auto" || device.startsWith("meta:"));
  if (open !== undefined)
    refuse(`${optionName("device")} names ${open} among several devices; name each as cpu, gpu or gpu:N`);
  if (typeof model !== "string") throw createRefusal(TRAINING_REFUSALS.devicesOfLoaded, "finetune");
  if (lora?.initLoraWeights === "eva") throw createRefusal(TRAINING_REFUSALS.devicesWithEva, "finetune");
  return devices;
}

/** Returns each option of a table, with its default unless it is given. */
function complete<Entries extends Table>(given: OptionsOf<Entries>, table: Entries): CompletedOf<Entries> {
  const values = Object.entries(table).map(([name, entry]) => {
    const value: unknown = given[name as keyof Entries];
    return [name, value === undefined && !isGroup(entry) ? entry.default : value];
  });
  return Object.fromEntries(values) as CompletedOf<Entries>;
}

/** Throws `ERR_OPTION` for options that exclude or require each other. */
function checkTogether({
  steps,
  epochs,
  data,
  evalData,
  evalSplit,
  evalEvery,
  patience,
}: FinetuneOptions): void {
  if (steps !== undefined && epochs !== undefined)
    throw createRefusal(TRAINING_REFUSALS.stepsWithEpochs, "finetune");
  if (evalData !== undefined && evalSplit !== undefined)
    throw createRefusal(TRAINING_REFUSALS.evalDataWithSplit, "finetune");
  if (readsStandardInput(data) && readsStandardInput(evalData))
    throw createRefusal(TRAINING_REFUSALS.bothStandardInput, "finetune");
  if (evalEvery !== undefined && (evalData ?? evalSplit) === undefined)
    throw createRefusal(TRAINING_REFUSALS.evalEveryAlone, "finetune");
  if (patience !== undefined && evalEvery === undefined)
    throw createRefusal(TRAINING_REFUSALS.patienceAlone, "finetune");
}

/** Throws `ERR_OPTION` for unknown options, for values that are not of their kind, and for options that exclude `resume`. */
export function checkKinds(given: FinetuneOptions): void {
  if (given === undefined) refuse("finetune takes an object of options, with a model and data");
  if (!isPlain(given)) refuseKind("finetune", "the argument", "an object of options", given);
  // An undefined option counts as omitted.
  const names = Object.entries(given).filter(([, value]) => value !== undefined);
  const options = Object.fromEntries(names) as FinetuneOptions;
  checkKnownOptions("finetune", options, Object.keys(OPTIONS) as (keyof FinetuneOptions)[], listPaths());
  for (const [name, value] of Object.entries(options as Record<string, unknown>))
    if (value === null) refuse(`finetune: ${optionName(name)} is null; leave it out for its default`);
  const { model, resume = false, overwrite = false, lora } = options;
  for (const name of ["data", "evalData"] as const) checkData(name, options);
  if (
    model !== undefined &&
    (typeof model !== "string" || model === "") &&
    !(isModule(model) && model instanceof PretrainedModel)
  )
    refuseKind("finetune", "model", "a folder, a name at a hub or a loaded model", model);
  checkTable(options as Record<string, unknown>, OPTIONS);
  if (options.chatTemplate !== undefined && model !== undefined && typeof model !== "string")
    throw createRefusal(TRAINING_REFUSALS.templateOfLoaded, "finetune");
  if (options.quantize !== undefined && model !== undefined && typeof model !== "string")
    throw createRefusal(TRAINING_REFUSALS.quantizeOfLoaded, "finetune");
  if (options.offloadWeights === true && model !== undefined && typeof model !== "string")
    throw createRefusal(TRAINING_REFUSALS.offloadOfLoaded, "finetune");
  if (options.offloadWeights === true && movesBase(lora?.initLoraWeights ?? true))
    throw createRefusal(TRAINING_REFUSALS.offloadWithStart, "finetune", String(lora?.initLoraWeights));
  if (lora?.name !== undefined) checkText("finetune", "lora.name", lora.name);
  if (lora?.modulesToSave != null) checkList("finetune", "lora.modulesToSave", lora.modulesToSave, checkText);
  if (resume !== false && overwrite) throw createRefusal(TRAINING_REFUSALS.resumeWithOverwrite, "finetune");
}

/** Returns the paths of all options, such as `optimizer.lr`. */
function listPaths(): string[] {
  const paths = Object.entries<AnyOption | AnyGroup>(OPTIONS).flatMap(([name, entry]) =>
    isGroup(entry) ? Object.keys(entry.fields).map((field) => `${name}.${field}`) : [name],
  );
  // The table has only some options of `lora`.
  return [...paths, "lora.layersToTransform"];
}

/** Throws `ERR_OPTION` for a value that is not of its entry's kind. `group` precedes the names in messages. */
function checkTable(options: Record<string, unknown>, table: Table, group = ""): void {
  for (const [name, entry] of Object.entries(table)) {
    const value = options[name];
    if (value === undefined) continue;
    if (!isGroup(entry)) {
      checkKind(group + name, entry.kind, value);
      continue;
    }
    if (!isPlain(value)) refuseKind("finetune", name, "an object of options", value);
    if (entry.complete)
      checkKnownOptions(
        `finetune: ${name}`,
        value,
        Object.keys(entry.fields) as (keyof typeof value & string)[],
      );
    checkTable(value as Record<string, unknown>, entry.fields, `${name}.`);
  }
}

/** Throws `ERR_OPTION` for data that is neither files nor rows, and for rows with a format. */
function checkData(name: "data" | "evalData", options: FinetuneOptions): void {
  const data = options[name];
  if (data === undefined) return;
  if (isFiles(data)) {
    if (listFiles(data).includes("")) refuse(`${optionName(name)} must not be empty`);
    if (listFiles(data).filter((file) => file === STANDARD_INPUT).length > 1)
      refuse(`${optionName(name)} names standard input twice, but it can be read only once`);
    return;
  }
  if (!isRows(data)) refuseKind("finetune", name, "the name of a file, an array of names, or rows", data);
  if (options.dataFormat !== undefined) throw createRefusal(TRAINING_REFUSALS.formatOfRows, "finetune");
}

/** Completes the optimizer's options with the defaults of its type. Throws `ERR_OPTION`. */
function parseOptimizer(given: NonNullable<FinetuneOptions["optimizer"]>): OptimizerSettings {
  const { type = "adamw" } = given;
  const defaults = OPTIMIZER_DEFAULTS[type];
  for (const name of ["betas", "eps", "momentum"] as const) {
    if (given[name] !== undefined && defaults[name] === undefined)
      refuse(`${optionName(`optimizer.${name}`)} has no effect with the optimizer ${type}; leave it out`);
  }
  return {
    type,
    lr: given.lr ?? defaults.lr,
    betas: given.betas ?? defaults.betas,
    eps: given.eps ?? defaults.eps,
    momentum: given.momentum ?? defaults.momentum,
    weightDecay: given.weightDecay ?? OPTIONS.optimizer.fields.weightDecay.default,
  };
}

/** Converts settings back to options, for the run's record. */
export function listOptions(settings: Settings): Record<string, unknown> {
  const { model, data, evalData, lora, optimizer, loraPlusRatio, clipNorm, device, devices } = settings;
  const names = Object.entries<AnyOption | AnyGroup>(OPTIONS).flatMap(([name, entry]) =>
    isGroup(entry) || entry.recorded !== false ? [name] : [],
  );
  return {
    ...Object.fromEntries(names.map((name) => [name, settings[name as keyof Settings]])),
    model: typeof model === "string" ? model : model.source,
    data: describeData(data),
    ...(evalData !== undefined && { evalData: describeData(evalData) }),
    clipNorm: clipNorm ?? 0,
    device: devices.length > 1 ? devices : device,
    optimizer: { ...optimizer, loraPlusRatio },
    // Data cannot be stored in the record.
    lora: { ...lora, evaData: undefined },
  };
}

/** The record of rows in memory, which cannot be stored. */
const ROWS = { rows: "given" };

function describeData(data: TrainingData): string | readonly string[] | typeof ROWS {
  return isFiles(data) ? data : ROWS;
}

function readsStandardInput(data: TrainingData | undefined): boolean {
  return isFiles(data) && listFiles(data).includes(STANDARD_INPUT);
}

/** Returns the warm-up steps: the given number, or 3% of all steps, rounded up. A single step has none: its rate would be 0. */
export function countWarmupSteps(warmup: number | undefined, steps: number): number {
  return warmup ?? Math.min(Math.ceil(0.03 * steps), steps - 1);
}

function refuse(what: string): never {
  throw new LowrankError("ERR_OPTION", what);
}
