/** The options of `inject`: PEFT's LoraConfig, validated and completed. */
import { checkKnownOptions, refuse, refuseUnknownOption, formatValue } from "../../arguments/check.js";
import { LowrankError } from "../../errors.js";
import { ADAPTER_NAME, isAdapterName } from "./adapter-name.js";
import { EVA_DEFAULTS, type EvaConfig, type EvaData } from "./eva.js";
import { checkInit, movesBase, type InitLoraWeights } from "./init-weights.js";
import type { BiasMode } from "./bias.js";
import { compilePatterns, type Pattern } from "./patterns.js";
import { chooseTargets, resolveTargets, type Targetable, type Targets } from "./targets.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { createRefusal } from "../../refusals/refusal.js";
import { optionName } from "../../arguments/option-name.js";

/** The supported part of PEFT's LoraConfig, with names in camelCase. */
export interface InjectOptions {
  /** The rank, at least 1. Default: 8. */
  r?: number | undefined;
  /** Alpha: the low-rank product is multiplied by loraAlpha / r. Default: 8. */
  loraAlpha?: number | undefined;
  /** Dropout probability of the input of A in training, from 0 to 1. Default: 0. */
  loraDropout?: number | undefined;
  /** The layers to adapt. Default: PEFT's targets for the model's family, or for other families all linear layers but the head. */
  targetModules?: Targets | undefined;
  /** Layers to exclude from `targetModules`. */
  excludeModules?: Targets | undefined;
  /** Restricts `targetModules` to these layer numbers. A target given as a full path is not restricted. */
  layersToTransform?: number | readonly number[] | undefined;
  /** Names of the lists in which `layersToTransform` counts layers. Default: any list. */
  layersPattern?: string | readonly string[] | undefined;
  /** Ranks other than `r`, by the layer's path, or by a Python pattern that matches its end. */
  rankPattern?: Pattern | undefined;
  /** Alphas other than `loraAlpha`, by path or pattern as in `rankPattern`. */
  alphaPattern?: Pattern | undefined;
  /** Which biases are trained, as copies that belong to the adapter. Default: `none`. */
  bias?: BiasMode | undefined;
  /** Modules to train fully, as copies; each name matches the end of a path. */
  modulesToSave?: readonly string[] | undefined;
  /** Whether the product is multiplied by loraAlpha / √r instead (Kalajdzievski 2023). Default: false. */
  useRslora?: boolean | undefined;
  /** Whether magnitude and direction are trained separately (DoRA, Liu et al. 2024). Default: false. */
  useDora?: boolean | undefined;
  /** Whether the low-rank product has a bias, initially zero. Default: false. */
  loraBias?: boolean | undefined;
  /** The initialisation. Default: `true`. */
  initLoraWeights?: InitLoraWeights | undefined;
  /** Batches for `initLoraWeights: "eva"`. */
  evaData?: EvaData | undefined;
  /** Configuration of `initLoraWeights: "eva"`. */
  evaConfig?: EvaConfig | undefined;
  /** Rows to train of the input embedding, or of layers by name. */
  trainableTokenIndices?: readonly number[] | Readonly<Record<string, readonly number[]>> | undefined;
  /** Whether layers tied to a trained embedding are trained with it. Default: false. */
  ensureWeightTying?: boolean | undefined;
  /** How the weights of linear layers are stored. Only validated, since each layer has this information. */
  fanInFanOut?: boolean | "auto" | undefined;
  /**
   * PEFT's name of the task, such as `CAUSAL_LM`, for the saved configuration. A classification task adds its head to
   * `modulesToSave`. Default: the model's task.
   */
  taskType?: string | undefined;
  /** The name of the adapter. Default: `default`. */
  name?: string | undefined;
  /** Whether an additional adapter is active at once. The first adapter always is. */
  active?: boolean | undefined;
}

type Optional =
  | "excludeModules"
  | "layersToTransform"
  | "layersPattern"
  | "evaData"
  | "evaConfig"
  | "trainableTokenIndices"
  | "taskType";

/** The options of an adapter, with defaults filled in. */
export type AdapterOptions = Required<Omit<InjectOptions, Optional | "fanInFanOut">> &
  Pick<InjectOptions, Optional> & {
    /** Whether the adapted weights are stored as [in, out]. */
    fanInFanOut: boolean;
  };

const isNames = (value: unknown): boolean =>
  Array.isArray(value) && value.every((name) => typeof name === "string" && name !== "");
const isTargets = (value: unknown): boolean => (typeof value === "string" && value !== "") || isNames(value);
const isRank = (value: unknown): boolean => Number.isInteger(value) && (value as number) >= 1;
const isLayer = (value: unknown): boolean => Number.isInteger(value) && (value as number) >= 0;
const isFlag = (value: unknown): boolean => typeof value === "boolean";
const isText = (value: unknown): boolean => typeof value === "string" && value !== "";
const isTokens = (value: unknown): boolean =>
  Array.isArray(value) && value.length > 0 && value.every(isLayer);
const isIterable = (value: unknown): boolean =>
  typeof value === "object" && value !== null && (Symbol.iterator in value || Symbol.asyncIterator in value);
const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The validity check and the description of every option. */
const OPTIONS: Record<keyof InjectOptions, readonly [valid: (value: unknown) => boolean, what: string]> = {
  r: [isRank, "a whole number of at least 1"],
  loraAlpha: [Number.isFinite, "a number"],
  loraDropout: [(v) => typeof v === "number" && v >= 0 && v <= 1, "a probability"],
  targetModules: [isTargets, "a list of names or a pattern"],
  excludeModules: [isTargets, "a list of names or a pattern"],
  layersToTransform: [
    (v) => isLayer(v) || (Array.isArray(v) && v.every(isLayer)),
    "the number of a layer, from 0, or a list of them",
  ],
  layersPattern: [isTargets, "a name or a list of names"],
  rankPattern: [
    (v) => isRecord(v) && Object.values(v).every(isRank),
    "ranks (whole numbers of at least 1) by pattern",
  ],
  alphaPattern: [(v) => isRecord(v) && Object.values(v).every(Number.isFinite), "numbers by pattern"],
  bias: [(v) => v === "none" || v === "all" || v === "lora_only", "one of none, all, lora_only"],
  modulesToSave: [isNames, "a list of names"],
  useRslora: [isFlag, "true or false"],
  useDora: [isFlag, "true or false"],
  loraBias: [isFlag, "true or false"],
  initLoraWeights: [(v) => typeof v === "boolean" || isText(v), "true, false or a way to start"],
  evaData: [isIterable, "batches, one after the other"],
  evaConfig: [isRecord, "rho, tau, useLabelMask, whiten and adjustScalingFactors"],
  trainableTokenIndices: [
    (v) => isTokens(v) || (isRecord(v) && Object.keys(v).length > 0 && Object.values(v).every(isTokens)),
    "ids of tokens, or such by the name of a layer",
  ],
  ensureWeightTying: [isFlag, "true or false"],
  fanInFanOut: [(v) => v === "auto" || isFlag(v), '"auto", true or false'],
  taskType: [isText, "a name"],
  name: [isAdapterName, ADAPTER_NAME],
  active: [isFlag, "true or false"],
};

/** Returns the description of valid values, if `value` is not valid. */
export function describeExpected(option: keyof InjectOptions, value: unknown): string | undefined {
  const [valid, what] = OPTIONS[option];
  return valid(value) ? undefined : what;
}

/** Modules that PEFT adds to `modulesToSave` for a task. */
const HEADS: Record<string, readonly string[]> = {
  SEQ_CLS: ["classifier", "score"],
  TOKEN_CLS: ["classifier", "score"],
  QUESTION_ANS: ["qa_outputs"],
};

/** Returns the possible heads of a task; a model need not have all of them. */
export function listHeads(taskType: string | undefined): readonly string[] {
  return (taskType === undefined ? undefined : HEADS[taskType]) ?? [];
}

/** Whether `name` is the usual name of a task's head. */
export function isHead(name: string): boolean {
  return Object.values(HEADS).some((heads) => heads.includes(name));
}

/** Validates options and fills in defaults. Throws `ERR_OPTION` for unknown options and invalid values. */
export function completeOptions(model: Targetable, given: InjectOptions): AdapterOptions {
  if (typeof (given as unknown) !== "object" || given === null || Array.isArray(given))
    refuse("inject", "options", "an object", given);
  const options: InjectOptions = {};
  for (const [option, value] of Object.entries(given)) {
    if (value === undefined || value === null) continue;
    if (!Object.hasOwn(OPTIONS, option)) refuseUnknownOption("inject", option, Object.keys(OPTIONS));
    const expected = describeExpected(option as keyof InjectOptions, value);
    if (expected !== undefined)
      throw new LowrankError(
        "ERR_OPTION",
        `inject: ${optionName(option)} must be ${expected}, got ${formatValue(value)}`,
      );
    Object.assign(options, { [option]: value as unknown });
  }
  const taskType = options.taskType ?? model.taskType;
  const saved = options.modulesToSave ?? [];
  const complete: AdapterOptions = {
    r: 8,
    loraAlpha: 8,
    loraDropout: 0,
    rankPattern: {},
    alphaPattern: {},
    bias: "none",
    useRslora: false,
    useDora: false,
    loraBias: false,
    initLoraWeights: true,
    ensureWeightTying: false,
    name: "default",
    active: false,
    ...options,
    targetModules: resolveTargets(model, options.targetModules ?? chooseTargets(model)),
    ...(taskType === undefined ? {} : { taskType }),
    fanInFanOut: options.fanInFanOut === true,
    modulesToSave: [...saved, ...listHeads(taskType).filter((head) => !saved.includes(head))],
  };
  checkLayers(complete);
  checkStart(complete);
  // Compiled here to find an invalid pattern before anything is changed.
  compilePatterns(complete.rankPattern, "rankPattern");
  compilePatterns(complete.alphaPattern, "alphaPattern");
  return complete;
}

const EVA_KEYS = Object.keys(EVA_DEFAULTS) as (keyof EvaConfig)[];

/** Rejects combinations of options that PEFT also rejects. */
function checkStart({ initLoraWeights: init, loraBias, useDora, evaData, evaConfig }: AdapterOptions): void {
  checkInit(init);
  const refuse = (what: string): never => {
    throw new LowrankError("ERR_OPTION", `inject: ${what}`);
  };
  if (loraBias && useDora) throw createRefusal(ADAPTER_REFUSALS.biasWithDora, "inject");
  if (loraBias && typeof init === "string")
    throw createRefusal(ADAPTER_REFUSALS.biasWithStart, "inject", init);
  if (useDora && movesBase(init))
    throw createRefusal(ADAPTER_REFUSALS.doraWithMovedBase, "inject", String(init));
  if (evaData !== undefined && init !== "eva") throw createRefusal(ADAPTER_REFUSALS.evaDataAlone, "inject");
  const { rho = 2, tau = 0.99 } = checkKnownOptions("inject: evaConfig", evaConfig, EVA_KEYS);
  if (!(rho >= 1)) refuse(`evaConfig.rho must be at least 1, got ${rho}`);
  if (!(tau >= 0 && tau <= 1)) refuse(`evaConfig.tau must be from 0 to 1, got ${tau}`);
}

function checkLayers({ targetModules, layersToTransform, layersPattern }: InjectOptions): void {
  if (layersPattern !== undefined && layersToTransform === undefined)
    throw createRefusal(ADAPTER_REFUSALS.layersPatternAlone, "inject");
  if (layersToTransform !== undefined && typeof targetModules === "string")
    throw createRefusal(ADAPTER_REFUSALS.layersWithPattern, "inject", `"${targetModules}"`);
}
