/** What `inject` takes: PEFT's LoraConfig, checked and completed. */
import { options as knownOptions, refuse, shown } from "../../argument.js";
import { LowrankError } from "../../errors.js";
import { ADAPTER_NAME, isAdapterName } from "./adapter-name.js";
import { EVA_DEFAULTS, type EvaConfig, type EvaData } from "./eva.js";
import { checkInit, movesBase, type InitLoraWeights } from "./init-weights.js";
import type { BiasMode } from "./bias.js";
import { patternReader, type Pattern } from "./patterns.js";
import { defaultTargets, namedTargets, type Targetable, type Targets } from "./targets.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { refused } from "../../refusals/refusal.js";
import { optionName } from "../../option-name.js";
import { didYouMean } from "../../suggest.js";

/** PEFT's LoraConfig, as far as it is built; names in camelCase. */
export interface InjectOptions {
  /** Rank, at least 1; 8. */
  r?: number | undefined;
  /** The low-rank product is multiplied by loraAlpha / r; 8. */
  loraAlpha?: number | undefined;
  /** Probability with which training drops what goes into A, from 0 to 1; 0. */
  loraDropout?: number | undefined;
  /**
   * Layers to adapt. Unless given those of PEFT's table for the model's family, or where it has none all linear
   * layers but the head.
   */
  targetModules?: Targets | undefined;
  /** Layers that are left alone although `targetModules` names them. */
  excludeModules?: Targets | undefined;
  /** Only these layers of the model, by number, of those that the names of `targetModules` end. */
  layersToTransform?: number | readonly number[] | undefined;
  /** Names of the lists of layers that `layersToTransform` counts in; any list unless given. */
  layersPattern?: string | readonly string[] | undefined;
  /** Other ranks than `r`, by the path of the layer or a Python pattern that ends it. */
  rankPattern?: Pattern | undefined;
  /** Other values than `loraAlpha`, likewise. */
  alphaPattern?: Pattern | undefined;
  /** Which biases are trained, as copies of their own; `none`. */
  bias?: BiasMode | undefined;
  /** Modules trained in full, as copies: each name matches the end of a path. */
  modulesToSave?: readonly string[] | undefined;
  /** Whether the product is multiplied by loraAlpha / √r instead (Kalajdzievski 2023); false. */
  useRslora?: boolean | undefined;
  /** Whether magnitude and direction are trained apart (DoRA, Liu et al. 2024); false. */
  useDora?: boolean | undefined;
  /** Whether the low-rank product has a bias, which starts at zero; false. */
  loraBias?: boolean | undefined;
  /** How adapters start: `true` unless given. */
  initLoraWeights?: InitLoraWeights | undefined;
  /** Batches for `initLoraWeights: "eva"`. */
  evaData?: EvaData | undefined;
  /** How `initLoraWeights: "eva"` looks for components. */
  evaConfig?: EvaConfig | undefined;
  /** Rows of the input embedding, or of layers by name, that are trained as they are. */
  trainableTokenIndices?: readonly number[] | Readonly<Record<string, readonly number[]>> | undefined;
  /** Whether what is tied to a trained embedding is trained with it; false. */
  ensureWeightTying?: boolean | undefined;
  /** How the weights of linear layers are stored. Each layer knows, so this is only checked. */
  fanInFanOut?: boolean | "auto" | undefined;
  /**
   * PEFT's name of the task, such as `CAUSAL_LM`, for the saved configuration; the model's own unless given. That of
   * a classifier adds its head to `modulesToSave`.
   */
  taskType?: string | undefined;
  /** What the adapter is called; `default`. */
  name?: string | undefined;
  /** Whether a further adapter counts at once; the first always does. */
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

/** The options of an adapter, with what was left out. */
export type AdapterOptions = Required<Omit<InjectOptions, Optional | "fanInFanOut">> &
  Pick<InjectOptions, Optional> & {
    /** Whether weights that it adapts are stored as [in, out]. */
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

/** Every option, when it is valid, and what it should be. */
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

/** What an option should be, where `value` isn't that. */
export function expectedOf(option: keyof InjectOptions, value: unknown): string | undefined {
  const [valid, what] = OPTIONS[option];
  return valid(value) ? undefined : what;
}

/** Modules that PEFT adds to `modulesToSave` for a task. */
const HEADS: Record<string, readonly string[]> = {
  SEQ_CLS: ["classifier", "score"],
  TOKEN_CLS: ["classifier", "score"],
  QUESTION_ANS: ["qa_outputs"],
};

/** The heads of a task, which need not all be there. */
export function headsOf(taskType: string | undefined): readonly string[] {
  return (taskType === undefined ? undefined : HEADS[taskType]) ?? [];
}

/** Whether it is what the head of some task is called. */
export function isHead(name: string): boolean {
  return Object.values(HEADS).some((heads) => heads.includes(name));
}

/** Refuses an option that is unknown or means nothing, and fills in what is left out. */
export function completed(model: Targetable, given: InjectOptions): AdapterOptions {
  if (typeof (given as unknown) !== "object" || given === null || Array.isArray(given))
    refuse("inject", "options", "an object", given);
  const options: InjectOptions = {};
  for (const [option, value] of Object.entries(given)) {
    if (value === undefined || value === null) continue;
    if (!Object.hasOwn(OPTIONS, option))
      throw new LowrankError(
        "ERR_OPTION",
        `inject: there is no option ${option}${didYouMean(option, Object.keys(OPTIONS))}; there are ${Object.keys(OPTIONS).join(", ")}`,
      );
    const expected = expectedOf(option as keyof InjectOptions, value);
    if (expected !== undefined)
      throw new LowrankError(
        "ERR_OPTION",
        `inject: ${optionName(option)} is ${expected}, not ${shown(value)}`,
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
    targetModules: namedTargets(model, options.targetModules ?? defaultTargets(model)),
    ...(taskType === undefined ? {} : { taskType }),
    fanInFanOut: options.fanInFanOut === true,
    modulesToSave: [...saved, ...headsOf(taskType).filter((head) => !saved.includes(head))],
  };
  checkLayers(complete);
  checkStart(complete);
  // A pattern that does not compile is found before anything is changed.
  patternReader(complete.rankPattern, "rankPattern");
  patternReader(complete.alphaPattern, "alphaPattern");
  return complete;
}

const EVA_KEYS = Object.keys(EVA_DEFAULTS) as (keyof EvaConfig)[];

/** What goes together in PEFT, and here. */
function checkStart({ initLoraWeights: init, loraBias, useDora, evaData, evaConfig }: AdapterOptions): void {
  checkInit(init);
  const refuse = (what: string): never => {
    throw new LowrankError("ERR_OPTION", `inject: ${what}`);
  };
  if (loraBias && useDora) throw refused(ADAPTER_REFUSALS.biasWithDora, "inject");
  if (loraBias && typeof init === "string") throw refused(ADAPTER_REFUSALS.biasWithStart, "inject", init);
  if (useDora && movesBase(init)) throw refused(ADAPTER_REFUSALS.doraWithMovedBase, "inject", String(init));
  if (evaData !== undefined && init !== "eva") throw refused(ADAPTER_REFUSALS.evaDataAlone, "inject");
  const { rho = 2, tau = 0.99 } = knownOptions("inject: evaConfig", evaConfig, EVA_KEYS);
  if (!(rho >= 1)) refuse(`evaConfig.rho is at least 1, not ${rho}`);
  if (!(tau >= 0 && tau <= 1)) refuse(`evaConfig.tau is from 0 to 1, not ${tau}`);
}

function checkLayers({ targetModules, layersToTransform, layersPattern }: InjectOptions): void {
  if (layersPattern !== undefined && layersToTransform === undefined)
    throw refused(ADAPTER_REFUSALS.layersPatternAlone, "inject");
  if (layersToTransform !== undefined && typeof targetModules === "string")
    throw refused(ADAPTER_REFUSALS.layersWithPattern, "inject", `"${targetModules}"`);
}
