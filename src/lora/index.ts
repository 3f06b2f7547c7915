/** `lowrank.lora`. What is asynchronous is loaded when it is first called. */
import { lazy } from "../lazy.js";

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
 * Writes the adapter at `dir` into `output` in another format: `peft` a folder, `kohya` and `loralib` a safetensors
 * file, `gguf` the file that llama.cpp puts on a model (`--lora`). Throws `ERR_OPTION` for what the format has no place
 * for, which is named; `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_UNMATCHED_KEY`, `ERR_SHAPE_MISMATCH`,
 * `ERR_UNSUPPORTED_MODEL`, `ERR_NOT_FINITE`, `ERR_WRITE`.
 */
export const convertAdapter = lazy(async () => (await import("./formats/convert.js")).convertAdapter);
/**
 * Reads an adapter into `model`, frozen unless `trainable`: a folder that PEFT or `saveAdapter` wrote, or a file of
 * kohya's or loralib's. Throws `ERR_ADAPTER_EXISTS`, `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_NO_TARGETS`,
 * `ERR_UNMATCHED_KEY`, `ERR_SHAPE_MISMATCH`, `ERR_NOT_FINITE`, `ERR_OPTION`; the model is then as it was.
 */
export const loadAdapter = lazy(async () => (await import("./formats/files.js")).loadAdapter);
/**
 * Writes an adapter as PEFT does, each file whole or not at all: `adapter_config.json` and
 * `adapter_model.safetensors` in `dir`, of one not called "default" in a folder of its name there. Throws
 * `ERR_UNKNOWN_ADAPTER`, `ERR_OPTION` for what PEFT cannot express, `ERR_WRITE`.
 */
export const saveAdapter = lazy(async () => (await import("./formats/files.js")).saveAdapter);
/**
 * Gives `model` an adapter, in place: each targeted layer is replaced by its low-rank form, which keeps its weights,
 * and the base is frozen. A layer of a user-defined class stays and is adapted in place. The first counts at once, a
 * further one where `active` is true. Throws `ERR_NO_TARGETS`, `ERR_ADAPTER_EXISTS`, `ERR_OPTION`, `ERR_OUT_OF_MEMORY`; the
 * model is then as it was. Source: PEFT's inject_adapter_in_model.
 */
export const inject = lazy(async () => (await import("./inject/inject.js")).inject);
/**
 * Adds adapter `name`, made of others by weight; it counts for nothing until `setAdapter`.
 *
 * - `linear` and `cat`: ΔW = Σ weight·ΔWᵢ exactly, by stacking the factors: the ranks add up. `linear` asks for equal
 *   ranks. With `rank` the sum is cut to it, as by `svd`.
 * - `svd`: the nearest of that sum of rank `rank`, which is the largest of theirs unless given.
 * - `ties`, `dare_linear`, `dare_ties`, `magnitude_prune`: as PEFT does, A and B each for themselves, √weight in either;
 *   the rank stays. Their `_svd` forms combine ΔWᵢ, cut to `rank`.
 *
 * Throws `ERR_ADAPTER_EXISTS`, `ERR_UNKNOWN_ADAPTER`, `ERR_OPTION`; nothing is changed then. Source: PEFT's
 * add_weighted_adapter, without its cross-terms in `linear`.
 */
export const addWeightedAdapter = lazy(
  async () => (await import("./operations/weighted.js")).addWeightedAdapter,
);
/**
 * Reads an adapter over the one called `name`, whose tensors keep their storage. The layers must be the same; a smaller
 * rank is filled up with zeros. Throws `ERR_UNKNOWN_ADAPTER`, `ERR_UNMATCHED_KEY`, `ERR_SHAPE_MISMATCH` for a larger
 * rank, `ERR_NOT_FINITE`, `ERR_OPTION` where it is merged or the layer has not its form; nothing is changed then.
 * Source: PEFT's hotswap_adapter.
 */
export const hotSwap = lazy(async () => (await import("./operations/hot-swap.js")).hotSwap);
/** Ranks, scalings and the norms of A, B and ΔW, a row for each adapter of each layer; ΔW itself is never built. */
export const report = lazy(async () => (await import("./operations/report.js")).report);
