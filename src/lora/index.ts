/** The namespace `lowrank.lora`. Asynchronous functions are imported on their first call. */
import { loadLazily } from "../package/lazy.js";

export type { LowRank } from "./layers/any-layer.js";
export type { AdapterFormat, ConvertOptions, ReadOptions } from "./formats/convert.js";
export type { LoadAdapterOptions } from "./formats/files.js";
export {
  Conv1d,
  Conv2d,
  Conv3d,
  ConvLoRA,
  type LoRAConv,
  type LoRAConvClass,
  type LoRAConvOptions,
} from "./layers/conv.js";
export { Embedding, type LoRAEmbeddingOptions } from "./layers/embedding.js";
export { deleteAdapter, setAdapter, unload, withoutAdapters } from "./adapter/active.js";
export type { InjectReport } from "./inject/inject.js";
export { LoRALayer, type Adapter, type LayerClass, type LoRAOptions } from "./layers/layer.js";
export { Linear, type LoRALinearOptions } from "./layers/linear.js";
export { MergedLinear, type MergedLinearOptions } from "./layers/merged-linear.js";
export { loraStateDict, markOnlyLoraAsTrainable } from "./adapter/mark.js";
export type { BiasMode } from "./options/bias.js";
export type { EvaBatch, EvaConfig, EvaData } from "./options/eva.js";
export type { InitLoraWeights } from "./options/init-weights.js";
export type { InjectOptions } from "./options/options.js";
export type { Pattern } from "./options/patterns.js";
export type { Targetable, Targets } from "./options/targets.js";
export { adapters } from "./adapter/registry.js";
export { merge, mergeAndUnload, unmerge } from "./adapter/merge.js";
export type { MajoritySign } from "./operations/task-arithmetic.js";
export type { Combination, WeightedAdapterOptions } from "./operations/weighted.js";
export type { LayerReport } from "./operations/report.js";
export { status, type Status } from "./operations/status.js";

/**
 * Converts the adapter at `dir` to another format at `output`: `peft` writes a folder, `kohya` and `loralib` a safetensors
 * file, `gguf` a file for llama.cpp's `--lora`. Throws `ERR_OPTION` for anything that the format cannot express,
 * `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_UNMATCHED_KEY`, `ERR_SHAPE_MISMATCH`, `ERR_UNSUPPORTED_MODEL`,
 * `ERR_NOT_FINITE`, `ERR_WRITE`.
 */
export const convertAdapter = loadLazily(async () => (await import("./formats/convert.js")).convertAdapter);
/**
 * Loads an adapter into `model`, frozen unless `trainable`: a folder written by PEFT or `saveAdapter`, or a file in kohya's
 * or loralib's format. Throws `ERR_ADAPTER_EXISTS`, `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_NO_TARGETS`,
 * `ERR_UNMATCHED_KEY`, `ERR_SHAPE_MISMATCH`, `ERR_NOT_FINITE`, `ERR_OPTION`; the model is then unchanged.
 */
export const loadAdapter = loadLazily(async () => (await import("./formats/files.js")).loadAdapter);
/**
 * Writes an adapter in PEFT's format, each file atomically: `adapter_config.json` and `adapter_model.safetensors` in `dir`,
 * or for an adapter not named "default" in a subfolder of its name. Throws `ERR_UNKNOWN_ADAPTER`, `ERR_OPTION` for
 * anything that PEFT cannot express, `ERR_WRITE`.
 */
export const saveAdapter = loadLazily(async () => (await import("./formats/files.js")).saveAdapter);
/**
 * Adds an adapter to `model` in place: each targeted layer is replaced by a low-rank layer that shares its weights, and
 * the base is frozen. A layer of a user-defined class stays the same object and is adapted in place. The first adapter is
 * active at once, an additional one if `active` is true. Throws `ERR_NO_TARGETS`, `ERR_ADAPTER_EXISTS`, `ERR_OPTION`,
 * `ERR_OUT_OF_MEMORY`; the model is then unchanged. Source: PEFT's inject_adapter_in_model.
 */
export const inject = loadLazily(async () => (await import("./inject/inject.js")).inject);
/**
 * Adds the adapter `name` as a weighted combination of others. It is not active until `setAdapter`.
 *
 * - `linear` and `cat`: ΔW = Σ weight·ΔWᵢ exactly, by concatenating the factors, so the ranks add up. `linear` requires
 *   equal ranks. With `rank` the sum is truncated as by `svd`.
 * - `svd`: the best approximation of that sum with rank `rank`, by default the largest rank of the inputs.
 * - `ties`, `dare_linear`, `dare_ties`, `magnitude_prune`: as in PEFT, A and B are combined separately, each scaled by
 *   √weight; the rank stays the same. Their `_svd` forms combine ΔWᵢ and truncate the result to `rank`.
 *
 * Throws `ERR_ADAPTER_EXISTS`, `ERR_UNKNOWN_ADAPTER`, `ERR_OPTION`; nothing is changed then. Source: PEFT's
 * add_weighted_adapter, without the cross terms of its `linear`.
 */
export const addWeightedAdapter = loadLazily(
  async () => (await import("./operations/weighted.js")).addWeightedAdapter,
);
/**
 * Reads an adapter into the existing tensors of the adapter `name`. The layers must be the same; a smaller rank is padded
 * with zeros. Throws `ERR_UNKNOWN_ADAPTER`, `ERR_UNMATCHED_KEY`, `ERR_SHAPE_MISMATCH` for a larger rank,
 * `ERR_NOT_FINITE`, `ERR_OPTION` if it is merged or cannot be expressed in the layer's form; nothing is changed then.
 * Source: PEFT's hotswap_adapter.
 */
export const hotSwap = loadLazily(async () => (await import("./operations/hot-swap.js")).hotSwap);
/** Returns rank, scaling and the norms of A, B and ΔW for each adapter of each layer, without computing ΔW. */
export const report = loadLazily(async () => (await import("./operations/report.js")).report);
