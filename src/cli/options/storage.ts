/** Options for the storage of a model's weights, for commands that do not train. */
import { Option } from "commander";

import type { StorageType } from "../../train/options.js";
import { STORAGE_TYPES } from "../../train/options/execution.js";

export function makeDtypeOption(): Option {
  return new Option(
    "--dtype <type>",
    "storage of the model's weights; default: as in its file. bf16 also computes CPU products in bf16",
  ).choices(STORAGE_TYPES);
}

/** Runs `fn` with the matmul precision that `finetune` uses for this storage, so that losses are equal. */
export async function runInStorage<T>(dtype: StorageType | undefined, fn: () => Promise<T>): Promise<T> {
  if (dtype !== "bf16") return fn();
  const { withMatmulPrecision } = await import("../../tensor/scope.js");
  return withMatmulPrecision("bf16", fn);
}
