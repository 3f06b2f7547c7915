export { loadAdapter, saveAdapter } from "./files.js";
export { Embedding, type LoRAEmbeddingOptions } from "./embedding.js";
export {
  adapters,
  deleteAdapter,
  inject,
  setAdapter,
  unload,
  withoutAdapters,
  type InjectOptions,
  type InjectReport,
} from "./inject.js";
export { LoRALayer, type Adapter, type LoRAOptions } from "./layer.js";
export { Linear, type LoRALinearOptions } from "./linear.js";
export { loraStateDict, markOnlyLoraAsTrainable, type BiasMode } from "./mark.js";
export { merge, mergeAndUnload, unmerge } from "./merge.js";
