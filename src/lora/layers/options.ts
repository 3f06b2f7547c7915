/** Validates the arguments of low-rank layers' constructors. */
import {
  checkFlag,
  isPlain,
  checkList,
  checkNumberThat,
  checkKnownOptions,
  checkProbability,
  refuse,
  checkWhole,
} from "../../arguments/check.js";
import { LowrankError } from "../../errors.js";
import type { LoRAOptions } from "./adapter.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { createRefusal } from "../../refusals/refusal.js";
import { describeOwn, isStandard } from "./standard.js";

/** Options of all low-rank layers. */
const COMMON = ["r", "loraAlpha", "mergeWeights", "useRslora", "useDora", "device", "weight"] as const;

/** Further options of each kind of layer. */
const OWN = {
  "lora.Linear": ["loraDropout", "loraBias", "fanInFanOut", "bias", "biasValues"],
  "lora.MergedLinear": ["loraDropout", "loraBias", "fanInFanOut", "bias", "biasValues", "enableLora"],
  "lora.Embedding": ["loraDropout", "loraBias", "paddingIdx", "maxNorm"],
  "lora.Conv": [
    "loraDropout",
    "loraBias",
    "bias",
    "biasValues",
    "stride",
    "padding",
    "dilation",
    "groups",
    "paddingMode",
  ],
} as const;

/** Option names of loralib and PEFT, mapped to the names here. */
const SPELLED: Record<string, string> = {
  rank: "r",
  alpha: "loraAlpha",
  dropout: "loraDropout",
  lora_alpha: "loraAlpha",
  lora_dropout: "loraDropout",
  merge_weights: "mergeWeights",
  fan_in_fan_out: "fanInFanOut",
  enable_lora: "enableLora",
  use_rslora: "useRslora",
  use_dora: "useDora",
  lora_bias: "loraBias",
  padding_idx: "paddingIdx",
  padding_mode: "paddingMode",
};

/**
 * Validates the options and sizes of a layer and returns the options. Throws `ERR_OPTION` with the name of the argument
 * if it is unknown, of the wrong type, or out of range.
 */
export function checkLayer<T extends LoRAOptions>(
  layer: string,
  given: T | undefined,
  sizes: Readonly<Record<string, unknown>> = {},
): T {
  for (const [name, size] of Object.entries(sizes)) checkWhole(layer, name, size, 1);
  const kind = layer.startsWith("lora.Conv") ? "lora.Conv" : (layer as keyof typeof OWN);
  for (const name of Object.keys(given ?? {})) {
    const intended = Object.hasOwn(SPELLED, name) ? SPELLED[name] : undefined;
    if (intended !== undefined)
      throw new LowrankError("ERR_OPTION", `${layer}: there is no option ${name}; use ${intended}`);
  }
  const known = [...COMMON, ...OWN[kind]] as unknown as readonly (keyof T & string)[];
  const checked = checkKnownOptions(layer, given, known);
  checkAdapterOptions(layer, checked);
  const { mergeWeights, useRslora } = checked;
  const { fanInFanOut, bias, enableLora } = checked as Record<string, unknown>;
  for (const [name, value] of Object.entries({ mergeWeights, useRslora, fanInFanOut, bias }))
    if (value !== undefined) checkFlag(layer, name, value);
  if (enableLora !== undefined) checkList(layer, "enableLora", enableLora, checkFlag);
  return checked;
}

/** Validates the adapter's options. Throws `ERR_OPTION`. */
function checkAdapterOptions(layer: string, given: LoRAOptions, least = 0): void {
  const { r, loraAlpha, loraDropout, useDora, loraBias } = given;
  if (r !== undefined) checkWhole(layer, "r", r, least);
  if (loraAlpha !== undefined)
    checkNumberThat(layer, "loraAlpha", loraAlpha, Number.isFinite, "a finite number");
  if (loraDropout !== undefined) checkProbability(layer, "loraDropout", loraDropout);
  if (useDora !== undefined) checkFlag(layer, "useDora", useDora);
  if (loraBias !== undefined) checkFlag(layer, "loraBias", loraBias);
  if (useDora && loraBias) throw createRefusal(ADAPTER_REFUSALS.biasWithDora, layer);
}

/** Validates the base class given to a mixin. Throws `ERR_OPTION`. */
export function checkBaseClass(mixin: string, given: unknown, Base: Function, what: string): void {
  const fits = typeof given === "function" && (given === Base || given.prototype instanceof Base);
  if (!fits) refuse(mixin, "Base", what, given);
}

/** Validates the layer and the options given to `fromBase`, and returns the layer. Throws `ERR_OPTION`. */
export function checkBase<T extends object>(
  layer: string,
  given: unknown,
  Base: abstract new (...args: never[]) => T,
  what: string,
  chosen: unknown,
): T {
  if (!(given instanceof Base)) return refuse(`${layer}.fromBase`, "layer", what, given);
  const adapters = (given as { adapters?: ReadonlyMap<string, unknown> | undefined }).adapters;
  if (adapters !== undefined && adapters.size > 0)
    throw new LowrankError(
      "ERR_OPTION",
      `${layer}.fromBase: the layer has adapters already (${[...adapters.keys()].join(", ")}), which would be lost; give it one more with inject`,
    );
  if (!isStandard(given))
    throw createRefusal(ADAPTER_REFUSALS.ownFromBase, `${layer}.fromBase`, describeOwn(given));
  // The options are later spread into an object, and a spread accepts any value.
  if (!isPlain(chosen)) refuse(`${layer}.fromBase`, "options", "an object of options", chosen);
  return given;
}
