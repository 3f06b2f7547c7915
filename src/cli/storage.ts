/** Options for the storage of a model's weights, for commands that do not train. */
import { Option } from "commander";

import { QUANTIZATIONS } from "../models/quantization.js";
import type { StorageType } from "../train/options.js";

export const STORAGE_TYPES: readonly StorageType[] = ["f32", "f16", "bf16"];

export function quantizeOption(): Option {
  return new Option(
    "--quantize <type>",
    "quantise the linear layers of the model's blocks when loading; other weights keep --dtype",
  ).choices(QUANTIZATIONS);
}

export function dtypeOption(): Option {
  return new Option(
    "--dtype <type>",
    "storage of the model's weights; default: as in its file. bf16 also computes CPU products in bf16",
  ).choices(STORAGE_TYPES);
}

/** Runs `fn` with the matmul precision that `finetune` uses for this storage, so that losses are equal. */
export async function inStorage<T>(dtype: StorageType | undefined, fn: () => Promise<T>): Promise<T> {
  if (dtype !== "bf16") return fn();
  const { withMatmulPrecision } = await import("../tensor/scope.js");
  return withMatmulPrecision("bf16", fn);
}
