/** Reads and writes `adapter_config.json` with PEFT's keys. Reading is strict; writing includes every key. */
import { LowrankError } from "../../errors.js";
import { EVA_DEFAULTS, type EvaConfig } from "../options/eva.js";
import { movesBase } from "../options/init-weights.js";
import { compilePythonRegex } from "../options/python-regex.js";
import { describeExpected, type AdapterOptions, type InjectOptions } from "../options/options.js";
import type { Targets } from "../options/targets.js";
import { FILE_REFUSALS } from "../../refusals/files.js";
import { createRefusal } from "../../refusals/refusal.js";

/** PEFT's keys and their defaults. */
const DEFAULTS: Record<string, unknown> = {
  alora_invocation_tokens: null,
  alpha_pattern: {},
  arrow_config: null,
  auto_mapping: null,
  base_model_name_or_path: null,
  bias: "none",
  corda_config: null,
  ensure_weight_tying: false,
  eva_config: null,
  exclude_modules: null,
  fan_in_fan_out: false,
  inference_mode: true,
  init_lora_weights: true,
  kasa_config: null,
  layer_replication: null,
  layers_pattern: null,
  layers_to_transform: null,
  loftq_config: {},
  lora_alpha: 8,
  lora_bias: false,
  lora_dropout: 0,
  lora_ga_config: null,
  megatron_config: null,
  megatron_core: "megatron.core",
  modules_to_save: null,
  monteclora_config: null,
  peft_type: "LORA",
  peft_version: "0.21.2",
  qalora_group_size: 16,
  r: 8,
  rank_pattern: {},
  revision: null,
  target_modules: null,
  target_parameters: null,
  task_type: null,
  trainable_token_indices: null,
  use_bdlora: null,
  use_dora: false,
  use_qalora: false,
  use_rslora: false,
  velora_config: null,
};

/** Keys that only describe the origin or initialisation of an adapter; any value is accepted. */
const FREE = new Set([
  "auto_mapping",
  "base_model_name_or_path",
  "inference_mode",
  "megatron_core",
  "peft_version",
  "qalora_group_size",
  "revision",
  "task_type",
  "corda_config",
  "eva_config",
  "loftq_config",
  "lora_ga_config",
]);

/** PEFT's names for the fields of evaConfig. */
const EVA: Record<string, keyof EvaConfig> = {
  rho: "rho",
  tau: "tau",
  use_label_mask: "useLabelMask",
  whiten: "whiten",
  adjust_scaling_factors: "adjustScalingFactors",
};

/** Keys that correspond to an option of `inject`. */
const TAKEN: Record<string, keyof AdapterOptions> = {
  r: "r",
  lora_alpha: "loraAlpha",
  lora_dropout: "loraDropout",
  target_modules: "targetModules",
  exclude_modules: "excludeModules",
  layers_to_transform: "layersToTransform",
  layers_pattern: "layersPattern",
  rank_pattern: "rankPattern",
  alpha_pattern: "alphaPattern",
  bias: "bias",
  modules_to_save: "modulesToSave",
  use_rslora: "useRslora",
  use_dora: "useDora",
  lora_bias: "loraBias",
  init_lora_weights: "initLoraWeights",
  fan_in_fan_out: "fanInFanOut",
  trainable_token_indices: "trainableTokenIndices",
  ensure_weight_tying: "ensureWeightTying",
  task_type: "taskType",
};

/** Returns the file's text for an adapter with `options`. `targets` is the value of target_modules. */
export function writeConfig(
  options: AdapterOptions,
  targets: Targets,
  { baseModel, revision }: { baseModel?: string | undefined; revision?: string | undefined } = {},
): string {
  const config: Record<string, unknown> = {
    ...DEFAULTS,
    base_model_name_or_path: baseModel ?? null,
    revision: revision ?? null,
  };
  for (const [key, option] of Object.entries(TAKEN)) {
    const value = options[option];
    // PEFT treats lists of targets as sets. Patterns keep their order, since the first match applies.
    config[key] = option === "excludeModules" ? parseTargets(value as Targets | undefined) : (value ?? null);
  }
  config["target_modules"] = parseTargets(targets);
  if (options.modulesToSave.length === 0) config["modules_to_save"] = null;
  // The file's factors include the start that was subtracted from the weight, so they form a plain adapter.
  if (movesBase(options.initLoraWeights)) config["init_lora_weights"] = true;
  if (options.initLoraWeights === "eva") {
    const eva = { ...EVA_DEFAULTS, ...options.evaConfig };
    const named = Object.entries(EVA).map(([key, option]) => [key, eva[option]] as const);
    config["eva_config"] = Object.fromEntries([...named, ["label_mask_value", -100] as const].sort());
  }
  const sorted = Object.fromEntries(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1)));
  // Python writes a float with a decimal point.
  return JSON.stringify(sorted, null, 2).replace(/("lora_dropout": \d+)(,?)$/m, "$1.0$2");
}

function parseTargets(value: Targets | undefined): Targets | null {
  return typeof value === "object" ? [...value].sort() : (value ?? null);
}

/**
 * Parses the options of an adapter file. Throws `ERR_FILE_FORMAT` with the key for one that is unknown, or that changes
 * the forward pass and is not supported, unless its value has no effect.
 */
export function readConfig(text: string, file: string): InjectOptions {
  let config: Record<string, unknown>;
  try {
    config = JSON.parse(text) as Record<string, unknown>;
  } catch (cause) {
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: not JSON: ${(cause as Error).message}`, { cause });
  }
  if (typeof config !== "object" || config === null || Array.isArray(config)) {
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: an adapter's configuration is a JSON object`);
  }
  if (config["peft_type"] !== undefined && config["peft_type"] !== "LORA") {
    throw createRefusal(
      FILE_REFUSALS.peftType,
      file,
      `peft_type is ${JSON.stringify(config["peft_type"])}`,
      "ERR_FILE_FORMAT",
    );
  }
  const options: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(config)) {
    const option = Object.hasOwn(TAKEN, key) ? TAKEN[key] : undefined;
    if (option === undefined) refuseUnsupported(key, value, file);
    else if (key === "target_modules" ? value !== null : value === false || !isNothing(value)) {
      const expected = describeExpected(option, value);
      if (expected !== undefined)
        throw new LowrankError(
          "ERR_FILE_FORMAT",
          `${file}: ${key} is ${JSON.stringify(value)}; expected ${expected}`,
        );
      options[option] = value;
    }
  }
  checkPatterns(config, file);
  refuseMovedBase(config["init_lora_weights"], file);
  const eva = config["eva_config"];
  if (options["initLoraWeights"] === "eva" && typeof eva === "object" && eva !== null)
    options["evaConfig"] = Object.fromEntries(
      Object.entries(EVA).map(([key, option]) => [option, (eva as Record<string, unknown>)[key]]),
    );
  return options;
}

/** Throws, naming file and key, for an invalid regular expression or one with syntax that JavaScript lacks. */
function checkPatterns(config: Record<string, unknown>, file: string): void {
  const listPatterns = (value: unknown): unknown[] => (typeof value === "string" ? [value] : []);
  const listKeys = (value: unknown): unknown[] =>
    typeof value === "object" && value !== null ? Object.keys(value) : [];
  const given: [key: string, patterns: unknown[]][] = [
    ["target_modules", listPatterns(config["target_modules"])],
    ["exclude_modules", listPatterns(config["exclude_modules"])],
    ["rank_pattern", listKeys(config["rank_pattern"])],
    ["alpha_pattern", listKeys(config["alpha_pattern"])],
    ["layers_pattern", [config["layers_pattern"]].flat().filter((pattern) => typeof pattern === "string")],
  ];
  for (const [key, patterns] of given) {
    for (const pattern of patterns) {
      try {
        compilePythonRegex(pattern as string, key);
      } catch (cause) {
        throw new LowrankError("ERR_FILE_FORMAT", `${file}: ${(cause as Error).message}`, { cause });
      }
    }
  }
}

/** Rejects initialisations for which the file's factors belong to a modified base weight. */
function refuseMovedBase(init: unknown, file: string): void {
  if (typeof init !== "string" || ["gaussian", "orthogonal", "eva"].includes(init)) return;
  throw createRefusal(
    FILE_REFUSALS.peftMoved,
    file,
    `init_lora_weights is ${JSON.stringify(init)}`,
    "ERR_FILE_FORMAT",
  );
}

/** Accepts an unknown key only if its value has no effect. */
function refuseUnsupported(key: string, value: unknown, file: string): void {
  if (
    FREE.has(key) ||
    key === "peft_type" ||
    isNothing(value) ||
    JSON.stringify(value) === JSON.stringify(DEFAULTS[key])
  )
    return;
  throw createRefusal(FILE_REFUSALS.peftKey, file, `${key} is ${JSON.stringify(value)}`, "ERR_FILE_FORMAT");
}

function isNothing(value: unknown): boolean {
  if (value === null || value === false || value === undefined) return true;
  return typeof value === "object" && Object.keys(value).length === 0;
}
