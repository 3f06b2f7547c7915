/** How a command that only reads a model stores its weights. */
import { Option } from "commander";

import { QUANTIZATIONS } from "../models/quantization.js";
import type { StorageType } from "../train/options.js";

export const STORAGE_TYPES: readonly StorageType[] = ["f32", "f16", "bf16"];

export function quantizeOption(): Option {
  return new Option(
    "--quantize <type>",
    "quantise the blocks' linear layers as the model is loaded; the rest stays in --dtype",
  ).choices(QUANTIZATIONS);
}

export function dtypeOption(): Option {
  return new Option(
    "--dtype <type>",
    "storage of the model's weights; as in its file unless given, and bf16 takes products on the cpu in bf16",
  ).choices(STORAGE_TYPES);
}

/** Runs `fn` with the products that `finetune` takes for that storage, so that losses are the same figures. */
export async function inStorage<T>(dtype: StorageType | undefined, fn: () => Promise<T>): Promise<T> {
  if (dtype !== "bf16") return fn();
  const { withMatmulPrecision } = await import("../scope.js");
  return withMatmulPrecision("bf16", fn);
}
