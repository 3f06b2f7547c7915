/** Validates and completes `finetune`'s options before anything is read or loaded. */
import {
  flag,
  isPlain,
  listOf,
  numeric,
  options as knownOptions,
  refuse as refuseKind,
  shown,
  text,
} from "../arguments/check.js";
import { parsedSize } from "../arguments/byte-size.js";
import { checkThreads, PRIORITIES, type Priority } from "../device/cpu-use.js";
import { DATA_FORMATS, type DataFormat, TRAIN_ON, type TrainOn } from "../data/format.js";
import { filesOf, type TrainingData, isFiles, isRows } from "../data/given.js";
import { STANDARD_INPUT } from "../data/source/source.js";
import type { Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import type { InjectOptions } from "../lora/index.js";
import { isModule } from "../nn/module.js";
import { PretrainedModel } from "../models/pretrained.js";
import { optionName } from "../arguments/option-name.js";
import { QUANTIZATIONS, type Quantization } from "../models/quantization.js";
import { LOG_FORMATS, type LogFormat } from "../runs/metrics.js";
import { MATMUL_PRECISIONS, type MatmulPrecision } from "../tensor/scope.js";
import { givenIn, isLeftOpen, type Keepable } from "./changeable.js";
import { portOf } from "./port.js";
import type { FinetuneOptions, ScheduleName, StorageType } from "./options.js";
import { OPTIMIZER_DEFAULTS, OPTIMIZER_TYPES, type OptimizerSettings } from "./options/optimizer-defaults.js";
import { DEFAULT_SAVE_EVERY, parseSaveInterval } from "./options/save-interval.js";
import { TRAINING_REFUSALS } from "../refusals/training.js";
import { refused } from "../refusals/refusal.js";
import { didYouMean } from "../arguments/suggest.js";

/** The default output folder. */
export const DEFAULT_OUTPUT = "./lowrank-out";

/** The schedules of the learning rate. */
const SCHEDULES = ["linear", "cosine", "constant"] as const satisfies readonly ScheduleName[];

export interface Settings {
  model: string | PretrainedModel;
  revision: string | undefined;
  offline: boolean | undefined;
  data: TrainingData;
  evalData: TrainingData | undefined;
  evalSplit: number | undefined;
  /** Undefined if the files' names determine it. */
  dataFormat: DataFormat | undefined;
  language: string | undefined;
  chatTemplate: string | undefined;
  /** The absolute path of the start adapter's folder. */
  adapter: string | undefined;
  output: string;
  overwrite: boolean;
  lora: InjectOptions & { r: number; loraAlpha: number };
  optimizer: OptimizerSettings;
  /** Undefined if A and B have the same learning rate. */
  loraPlusRatio: number | undefined;
  schedule: ScheduleName;
  /** Warm-up steps of the whole run: see `warmupOf`. */
  warmup: number | undefined;
  steps: number | undefined;
  epochs: number | undefined;
  batchSize: number;
  gradientAccumulation: number;
  maxLength: number;
  gradientCheckpointing: boolean;
  packing: boolean;
  trainOn: TrainOn;
  labelSmoothing: number;
  /** Undefined disables clipping. */
  clipNorm: number | undefined;
  seed: number;
  evalEvery: number | undefined;
  /** Steps, a time such as `10m`, or `never`: see `parseSaveInterval`. */
  saveEvery: number | string;
  keep: number;
  patience: number | undefined;
  dtype: StorageType | undefined;
  quantize: Quantization | undefined;
  /** The options that the caller set and that `memory` must therefore not change. */
  given: readonly Keepable[];
  /** The memory limit; undefined changes no options. */
  memory: number | "auto" | undefined;
  /** The precision that the caller requested; undefined if it follows from other options. */
  askedPrecision: MatmulPrecision | undefined;
  /** Undefined uses the current precision, or for a resumed run the recorded one. */
  matmulPrecision: MatmulPrecision | undefined;
  device: Device;
  threads: number | undefined;
  priority: Priority | undefined;
  profile: string | undefined;
  log: LogFormat | undefined;
  signal: AbortSignal | undefined;
}

const KNOWN = [
  "model",
  "revision",
  "offline",
  "data",
  "evalData",
  "evalSplit",
  "dataFormat",
  "language",
  "chatTemplate",
  "adapter",
  "output",
  "overwrite",
  "lora",
  "optimizer",
  "schedule",
  "warmup",
  "steps",
  "epochs",
  "batchSize",
  "gradientAccumulation",
  "maxLength",
  "gradientCheckpointing",
  "packing",
  "trainOn",
  "labelSmoothing",
  "clipNorm",
  "seed",
  "evalEvery",
  "saveEvery",
  "keep",
  "patience",
  "resume",
  "dtype",
  "quantize",
  "memory",
  "matmulPrecision",
  "device",
  "threads",
  "priority",
  "profile",
  "log",
  "dashboard",
  "signal",
] satisfies (keyof FinetuneOptions)[];

const OPTIMIZER_KEYS = ["type", "lr", "betas", "eps", "momentum", "weightDecay", "loraPlusRatio"] as const;

/** Throws `ERR_OPTION`, naming the option and its value. */
export function settingsOf(options: FinetuneOptions): Settings {
  checkKinds(options);
  if (options.model === undefined || options.data === undefined) refuse("finetune takes a model and data");
  if (typeof options.model !== "string" && (options.revision ?? options.offline) !== undefined)
    throw refused(TRAINING_REFUSALS.revisionOfLoaded, "finetune");
  const { lora = {}, optimizer = {} } = options;
  const r = count("lora.r", lora.r ?? 16, 1);
  const loraAlpha = number("lora.loraAlpha", lora.loraAlpha ?? 2 * r);
  const loraDropout = number("lora.loraDropout", lora.loraDropout ?? 0);
  if (loraDropout < 0 || loraDropout > 1)
    refuse(`${optionName("lora.loraDropout")} must be a probability, got ${loraDropout}`);
  checkTogether(options);
  const held = options.evalData ?? options.evalSplit;
  const { evalSplit } = options;
  if (evalSplit !== undefined && !(number("evalSplit", evalSplit) > 0 && evalSplit < 1))
    refuse(`${optionName("evalSplit")} must be between 0 and 1, got ${evalSplit}`);
  if (options.epochs !== undefined && !(number("epochs", options.epochs) > 0))
    refuse(`${optionName("epochs")} must be above 0, got ${options.epochs}`);
  const patience = optional("patience", options.patience, 1);
  if (patience !== undefined && (held === undefined || options.evalEvery === undefined))
    throw refused(TRAINING_REFUSALS.patienceAlone, "finetune");
  const clipNorm = notNegative("clipNorm", options.clipNorm ?? 1);
  const labelSmoothing = number("labelSmoothing", options.labelSmoothing ?? 0);
  if (labelSmoothing < 0 || labelSmoothing >= 1)
    refuse(`${optionName("labelSmoothing")} must be at least 0 and below 1, got ${labelSmoothing}`);
  return {
    model: options.model,
    revision: options.revision,
    offline: options.offline,
    data: options.data,
    evalData: options.evalData,
    evalSplit,
    dataFormat:
      options.dataFormat === undefined ? undefined : oneOf("dataFormat", options.dataFormat, DATA_FORMATS),
    language: options.language,
    chatTemplate: path("chatTemplate", options.chatTemplate),
    adapter: options.adapter,
    output: options.output ?? DEFAULT_OUTPUT,
    overwrite: options.overwrite ?? false,
    lora: { targetModules: "all-linear", ...lora, r, loraAlpha, loraDropout },
    optimizer: parseOptimizer(optimizer),
    loraPlusRatio:
      optimizer.loraPlusRatio === undefined
        ? undefined
        : notNegative("optimizer.loraPlusRatio", optimizer.loraPlusRatio),
    schedule: oneOf("schedule", options.schedule ?? "linear", SCHEDULES),
    warmup: optional("warmup", options.warmup, 0),
    steps: optional("steps", options.steps, 1),
    epochs: options.epochs,
    batchSize: count("batchSize", options.batchSize ?? 1, 1),
    gradientAccumulation: count("gradientAccumulation", options.gradientAccumulation ?? 8, 1),
    maxLength: count("maxLength", options.maxLength ?? 512, 2),
    gradientCheckpointing: options.gradientCheckpointing ?? false,
    packing: options.packing ?? false,
    trainOn: oneOf("trainOn", options.trainOn ?? "completion", TRAIN_ON),
    labelSmoothing,
    clipNorm: clipNorm === 0 ? undefined : clipNorm,
    seed: count("seed", options.seed ?? 0, 0),
    evalEvery: optional("evalEvery", options.evalEvery, 1),
    saveEvery: saveEvery(options.saveEvery ?? DEFAULT_SAVE_EVERY),
    keep: count("keep", options.keep ?? 3, 1),
    patience,
    dtype:
      options.dtype === undefined
        ? undefined
        : oneOf("dtype", options.dtype, ["f32", "f16", "bf16"] as const),
    quantize: options.quantize === undefined ? undefined : oneOf("quantize", options.quantize, QUANTIZATIONS),
    given: givenIn(options),
    askedPrecision: isLeftOpen(options, "matmulPrecision") ? undefined : options.matmulPrecision,
    memory: options.memory === undefined ? undefined : memorySize(options.memory),
    matmulPrecision:
      options.matmulPrecision === undefined
        ? undefined
        : oneOf("matmulPrecision", options.matmulPrecision, MATMUL_PRECISIONS),
    device: (options.device ?? "auto") as Device,
    threads: options.threads === undefined ? undefined : checkThreads("finetune", options.threads),
    priority: options.priority === undefined ? undefined : oneOf("priority", options.priority, PRIORITIES),
    profile: path("profile", options.profile),
    log: options.log === undefined ? undefined : oneOf("log", options.log, LOG_FORMATS),
    signal: options.signal,
  };
}

/** Throws `ERR_OPTION` for options that exclude or require each other. */
function checkTogether({ steps, epochs, data, evalData, evalSplit, evalEvery }: FinetuneOptions): void {
  if (steps !== undefined && epochs !== undefined)
    throw refused(TRAINING_REFUSALS.stepsWithEpochs, "finetune");
  if (evalData !== undefined && evalSplit !== undefined)
    throw refused(TRAINING_REFUSALS.evalDataWithSplit, "finetune");
  if (readsStandardInput(data) && readsStandardInput(evalData))
    throw refused(TRAINING_REFUSALS.bothStandardInput, "finetune");
  if (evalEvery !== undefined && (evalData ?? evalSplit) === undefined)
    throw refused(TRAINING_REFUSALS.evalEveryAlone, "finetune");
}

/** Throws `ERR_OPTION` for unknown options, for values of a wrong type, and for options that exclude `resume`. */
export function checkKinds(given: FinetuneOptions): void {
  if (given === undefined) refuse("finetune takes an object of options, with a model and data");
  if (!isPlain(given)) refuseKind("finetune", "the argument", "an object of options", given);
  // An undefined option counts as omitted.
  const names = Object.entries(given).filter(([, value]) => value !== undefined);
  const options = knownOptions("finetune", Object.fromEntries(names) as FinetuneOptions, KNOWN);
  for (const [name, value] of Object.entries(options as Record<string, unknown>))
    if (value === null) refuse(`finetune: ${optionName(name)} is null; leave it out for its default`);
  const { model, resume = false, overwrite = false, lora, optimizer, signal } = options;
  for (const name of ["data", "evalData"] as const) {
    const data = options[name];
    if (data === undefined) continue;
    if (isFiles(data)) {
      if (filesOf(data).includes("")) refuse(`${optionName(name)} must not be empty`);
      if (filesOf(data).filter((file) => file === STANDARD_INPUT).length > 1)
        refuse(`${optionName(name)} names standard input twice, but it can be read only once`);
      continue;
    }
    if (!isRows(data)) refuseKind("finetune", name, "the name of a file, an array of names, or rows", data);
    if (options.dataFormat !== undefined) throw refused(TRAINING_REFUSALS.formatOfRows, "finetune");
  }
  for (const name of ["adapter", "output", "device", "revision", "language"] as const) {
    const value = options[name];
    if (value !== undefined && text("finetune", name, value) === "")
      refuse(`${optionName(name)} must not be empty`);
  }
  if (
    model !== undefined &&
    (typeof model !== "string" || model === "") &&
    !(isModule(model) && model instanceof PretrainedModel)
  )
    refuseKind("finetune", "model", "a folder, a name at a hub or a loaded model", model);
  if (options.chatTemplate !== undefined && model !== undefined && typeof model !== "string")
    throw refused(TRAINING_REFUSALS.templateOfLoaded, "finetune");
  if (options.quantize !== undefined && model !== undefined && typeof model !== "string")
    throw refused(TRAINING_REFUSALS.quantizeOfLoaded, "finetune");
  if (typeof resume !== "string" || resume === "") flag("finetune", "resume", resume);
  for (const name of ["overwrite", "gradientCheckpointing", "packing", "offline"] as const)
    if (options[name] !== undefined) flag("finetune", name, options[name]);
  if (typeof options.dashboard !== "boolean" && options.dashboard !== undefined)
    portOf("finetune", "dashboard", options.dashboard);
  for (const [name, value] of Object.entries({ lora, optimizer }))
    if (value !== undefined && !isPlain(value)) refuseKind("finetune", name, "an object of options", value);
  if (lora?.name !== undefined) text("finetune", "lora.name", lora.name);
  if (lora?.modulesToSave != null) listOf("finetune", "lora.modulesToSave", lora.modulesToSave, text);
  knownOptions("finetune: optimizer", optimizer, OPTIMIZER_KEYS);
  if (optimizer?.betas !== undefined) listOf("finetune", "optimizer.betas", optimizer.betas, numeric);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    refuseKind("finetune", "signal", "an AbortSignal", signal);
  if (resume !== false && overwrite) throw refused(TRAINING_REFUSALS.resumeWithOverwrite, "finetune");
}

/** Completes the optimizer's options with the defaults of its type. Throws `ERR_OPTION`. */
function parseOptimizer(given: NonNullable<FinetuneOptions["optimizer"]>): OptimizerSettings {
  const type = oneOf("optimizer.type", given.type ?? "adamw", OPTIMIZER_TYPES);
  const defaults = OPTIMIZER_DEFAULTS[type];
  for (const name of ["betas", "eps", "momentum"] as const) {
    if (given[name] !== undefined && defaults[name] === undefined)
      refuse(`${optionName(`optimizer.${name}`)} has no effect with the optimizer ${type}; leave it out`);
  }
  const betas = given.betas ?? defaults.betas;
  if (betas !== undefined && (betas.length !== 2 || !betas.every((beta) => beta >= 0 && beta < 1))) {
    refuse(
      `${optionName("optimizer.betas")} must be two numbers of at least 0 and below 1, got ${betas.join(", ")}`,
    );
  }
  const eps = given.eps ?? defaults.eps;
  const momentum = given.momentum ?? defaults.momentum;
  if (momentum !== undefined && !(momentum >= 0 && momentum < 1))
    refuse(`${optionName("optimizer.momentum")} must be at least 0 and below 1, got ${momentum}`);
  return {
    type,
    lr: notNegative("optimizer.lr", given.lr ?? defaults.lr),
    betas,
    eps: eps === undefined ? undefined : notNegative("optimizer.eps", eps),
    momentum: momentum === undefined ? undefined : number("optimizer.momentum", momentum),
    weightDecay: notNegative("optimizer.weightDecay", given.weightDecay ?? 0.01),
  };
}

/** Converts settings back to options, for the run's record. */
export function optionsOf(settings: Settings): Record<string, unknown> {
  const {
    model,
    offline: _offline,
    signal: _,
    profile: _profile,
    overwrite: _overwrite,
    output: _output,
    ...rest
  } = settings;
  const { loraPlusRatio, clipNorm, optimizer, lora, given: _given, askedPrecision: _asked, ...same } = rest;
  return {
    ...same,
    model: typeof model === "string" ? model : model.source,
    data: recorded(rest.data),
    ...(rest.evalData !== undefined && { evalData: recorded(rest.evalData) }),
    clipNorm: clipNorm ?? 0,
    optimizer: { ...optimizer, loraPlusRatio },
    // Data cannot be stored in the record.
    lora: { ...lora, evaData: undefined },
  };
}

/** The record of rows in memory, which cannot be stored. */
const ROWS = { rows: "given" };

function recorded(data: TrainingData): string | readonly string[] | typeof ROWS {
  return isFiles(data) ? data : ROWS;
}

function readsStandardInput(data: TrainingData | undefined): boolean {
  return isFiles(data) && filesOf(data).includes(STANDARD_INPUT);
}

/** Returns the warm-up steps: the given number, or 3% of all steps, rounded up. A single step has none: its rate would be 0. */
export function warmupOf(warmup: number | undefined, steps: number): number {
  return warmup ?? Math.min(Math.ceil(0.03 * steps), steps - 1);
}

function refuse(what: string): never {
  throw new LowrankError("ERR_OPTION", what);
}

function number(name: string, value: number): number {
  if (typeof value !== "number" || !Number.isFinite(value))
    refuse(`${optionName(name)} must be a number, got ${shown(value)}`);
  return value;
}

function notNegative(name: string, value: number): number {
  if (number(name, value) < 0) refuse(`${optionName(name)} must be 0 or more, got ${value}`);
  return value;
}

export function count(name: string, value: number, least: number): number {
  if (!Number.isSafeInteger(value) || value < least) {
    refuse(`${optionName(name)} must be a whole number of at least ${least}, got ${shown(value)}`);
  }
  return value;
}

export function optional(name: string, value: number | undefined, least: number): number | undefined {
  return value === undefined ? undefined : count(name, value, least);
}

/** Returns a validated `saveEvery`; 0 becomes `never`. */
function saveEvery(value: number | string): number | string {
  return parseSaveInterval(value) === undefined ? "never" : value;
}

function memorySize(value: unknown): number | "auto" {
  if (value === "auto") return value;
  const size = typeof value === "string" ? parsedSize(value) : value;
  if (typeof size === "number" && Number.isSafeInteger(size) && size > 0) return size;
  return refuse(
    `${optionName("memory")} must be a number of bytes, a size such as "2GB", or "auto", got ${shown(value)}`,
  );
}

function path(name: string, value: string | undefined): string | undefined {
  if (value !== undefined && (typeof value !== "string" || value === ""))
    refuse(`${optionName(name)} must be the name of a file, got ${shown(value)}`);
  return value;
}

function oneOf<T extends string>(name: string, value: T, choices: readonly T[]): T {
  if (!choices.includes(value)) {
    const near = didYouMean(value, choices);
    refuse(`${optionName(name)} must be one of ${choices.join(", ")}, got ${shown(value)}${near}`);
  }
  return value;
}
