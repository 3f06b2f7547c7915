/** `adapter_config.json`: PEFT's spelling, read strictly and written in full. */
import { LowrankError } from "../errors.js";
import type { InjectOptions } from "./inject.js";
import type { Targets } from "./targets.js";

/** PEFT's keys and what they are when nothing is asked for. */
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

/** Keys that say where an adapter comes from or how it started: any value will do. */
const FREE = new Set([
  "auto_mapping",
  "base_model_name_or_path",
  "inference_mode",
  "megatron_core",
  "peft_version",
  "qalora_group_size",
  "revision",
  "task_type",
  "fan_in_fan_out",
  "eva_config",
  "corda_config",
  "loftq_config",
  "lora_ga_config",
]);

/** Ways to start that leave the base as it is; PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA move it. */
const STARTS = new Set<unknown>([true, false, "gaussian", "eva", "orthogonal"]);

/** Keys that `inject` takes. */
const BUILT = new Set([
  "peft_type",
  "r",
  "lora_alpha",
  "lora_dropout",
  "target_modules",
  "exclude_modules",
  "bias",
  "modules_to_save",
  "use_rslora",
]);

/** The file's text for an adapter of `options`, whose targets PEFT writes as `targets`. */
export function writeConfig(
  options: InjectOptions,
  targets: Targets,
  { baseModel, taskType }: { baseModel?: string | undefined; taskType?: string | undefined } = {},
): string {
  const config: Record<string, unknown> = {
    ...DEFAULTS,
    base_model_name_or_path: baseModel ?? null,
    bias: options.bias ?? "none",
    exclude_modules: listed(options.excludeModules) ?? null,
    lora_alpha: options.loraAlpha,
    lora_dropout: options.loraDropout ?? 0,
    modules_to_save: (options.modulesToSave?.length ?? 0) > 0 ? listed(options.modulesToSave) : null,
    r: options.r,
    target_modules: listed(targets),
    task_type: options.taskType ?? taskType ?? null,
    use_rslora: options.useRslora ?? false,
  };
  const sorted = Object.fromEntries(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1)));
  // Python writes a float as one.
  return JSON.stringify(sorted, null, 2).replace(/("lora_dropout": \d+)(,?)$/m, "$1.0$2");
}

function listed(value: string | readonly string[] | undefined): unknown {
  return typeof value === "object" ? [...value].sort() : value;
}

/**
 * Options of an adapter file. A key that changes the forward pass and is not built, and a key that
 * is unknown, are errors that name it, unless its value asks for nothing.
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
    throw new LowrankError(
      "ERR_FILE_FORMAT",
      `${file}: peft_type is ${JSON.stringify(config["peft_type"])}; only LORA is read`,
    );
  }
  for (const [key, value] of Object.entries(config)) {
    if (
      BUILT.has(key) ||
      FREE.has(key) ||
      (key === "init_lora_weights" && STARTS.has(value)) ||
      isNothing(value) ||
      JSON.stringify(value) === JSON.stringify(DEFAULTS[key])
    )
      continue;
    throw new LowrankError(
      "ERR_FILE_FORMAT",
      `${file}: ${key} is ${JSON.stringify(value)}, which changes the adapter and is not supported`,
    );
  }
  const take = <T>(key: string, valid: (v: unknown) => boolean, what: string): T | undefined => {
    const value = config[key];
    if (value === undefined || value === null) return undefined;
    if (!valid(value))
      throw new LowrankError(
        "ERR_FILE_FORMAT",
        `${file}: ${key} is ${JSON.stringify(value)}; expected ${what}`,
      );
    return value as T;
  };
  const number = (v: unknown): boolean => typeof v === "number" && Number.isFinite(v);
  const names = (v: unknown): boolean =>
    typeof v === "string" || (Array.isArray(v) && v.every((n) => typeof n === "string"));
  const options: InjectOptions = {
    r: take<number>("r", (v) => Number.isInteger(v) && (v as number) > 0, "a whole number above 0") ?? 8,
    loraAlpha: take<number>("lora_alpha", number, "a number") ?? 8,
    loraDropout: take<number>("lora_dropout", number, "a number") ?? 0,
    bias:
      take<"none">(
        "bias",
        (v) => v === "none" || v === "all" || v === "lora_only",
        "none, all or lora_only",
      ) ?? "none",
    useRslora: take<boolean>("use_rslora", (v) => typeof v === "boolean", "true or false") ?? false,
    modulesToSave:
      take<string[]>("modules_to_save", (v) => Array.isArray(v) && names(v), "a list of names") ?? [],
  };
  const targets = take<string | string[]>("target_modules", names, "names or a pattern");
  const exclude = take<string | string[]>("exclude_modules", names, "names or a pattern");
  const task = take<string>("task_type", (v) => typeof v === "string", "a string");
  if (targets !== undefined) options.targetModules = targets;
  if (exclude !== undefined && exclude.length > 0) options.excludeModules = exclude;
  if (task !== undefined) options.taskType = task;
  return options;
}

function isNothing(value: unknown): boolean {
  if (value === null || value === false || value === undefined) return true;
  return typeof value === "object" && Object.keys(value).length === 0;
}
