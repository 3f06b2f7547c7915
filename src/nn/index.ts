export { Dropout } from "./dropout.js";
export { Embedding, type EmbeddingOptions } from "./embedding.js";
export { Linear, type LinearOptions } from "./linear.js";
export { Module, type LoadReport } from "./module.js";
export { LayerNorm, RMSNorm, type NormOptions } from "./norm.js";
export { Sequential } from "./sequential.js";
