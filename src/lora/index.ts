/** `lowrank.lora`. What is asynchronous is loaded when it is first called. */
import { later } from "../later.js";

export type { AdapterFormat, ConvertOptions } from "./convert.js";
export type { LoadAdapterOptions } from "./files.js";
export { Conv1d, Conv2d, Conv3d, ConvLoRA, type LoRAConvOptions } from "./conv.js";
export { Embedding, type LoRAEmbeddingOptions } from "./embedding.js";
export { deleteAdapter, setAdapter, unload, withoutAdapters } from "./active.js";
export type { InjectReport } from "./inject.js";
export { LoRALayer, type Adapter, type LoRAOptions } from "./layer.js";
export { Linear, type LoRALinearOptions } from "./linear.js";
export { MergedLinear, type MergedLinearOptions } from "./merged-linear.js";
export { loraStateDict, markOnlyLoraAsTrainable, type BiasMode } from "./mark.js";
export type { EvaBatch, EvaConfig, EvaData } from "./init/eva.js";
export type { InitLoraWeights } from "./init/kind.js";
export type { InjectOptions } from "./options.js";
export { adapters } from "./registry.js";
export { unmerge } from "./merge.js";
export type { Combination, WeightedAdapterOptions } from "./operations/weighted.js";
export { status, type LayerReport, type Status } from "./operations/report.js";

export const convertAdapter = later(async () => (await import("./convert.js")).convertAdapter);
export const loadAdapter = later(async () => (await import("./files.js")).loadAdapter);
export const saveAdapter = later(async () => (await import("./files.js")).saveAdapter);
export const inject = later(async () => (await import("./inject.js")).inject);
export const merge = later(async () => (await import("./merge.js")).merge);
export const mergeAndUnload = later(async () => (await import("./merge.js")).mergeAndUnload);
export const addWeightedAdapter = later(
  async () => (await import("./operations/weighted.js")).addWeightedAdapter,
);
export const hotSwap = later(async () => (await import("./operations/hot-swap.js")).hotSwap);
export const report = later(async () => (await import("./operations/report.js")).report);
