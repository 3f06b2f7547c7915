export {
  ELU,
  GELU,
  LeakyReLU,
  LogSigmoid,
  ReLU,
  Sigmoid,
  SiLU,
  Softplus,
  Tanh,
  type GELUOptions,
} from "./activation.js";
export { scaledDotProductAttention, type ScaledDotProductAttentionOptions } from "./attention.js";
export { BatchNorm1d, BatchNorm2d, type BatchNormOptions } from "./batch-norm.js";
export { Conv1d, Conv2d, Conv3d, ConvNd, type ConvOptions } from "./conv.js";
export { ConvTranspose1d, ConvTranspose2d, type ConvTransposeOptions } from "./conv-transpose.js";
export type { ConvGeometry, GeometryOptions, PaddingMode, PerDimension } from "./convolution.js";
export { Dropout } from "./dropout.js";
export { Embedding, type EmbeddingOptions } from "./embedding.js";
export { Flatten } from "./flatten.js";
export * as functional from "./functional.js";
export { crossEntropy } from "./functional.js";
export { GroupNorm, type GroupNormOptions } from "./group-norm.js";
export { GRU } from "./gru.js";
export { Identity } from "./identity.js";
export { InstanceNorm1d, InstanceNorm2d, type InstanceNormOptions } from "./instance-norm.js";
export { Linear, type LinearOptions } from "./linear.js";
export {
  bceWithLogits,
  cosineSimilarity,
  huberLoss,
  klDiv,
  l1Loss,
  mseLoss,
  type BceOptions,
  type CosineSimilarityOptions,
  type HuberOptions,
  type KlDivOptions,
  type LossOptions,
  type Reduction,
} from "./losses.js";
export { LSTM, type LSTMOptions, type LSTMState } from "./lstm.js";
export { Module, type LoadReport, type ParameterFilter } from "./module.js";
export { ModuleDict } from "./module-dict.js";
export { ModuleList } from "./module-list.js";
export {
  MultiheadAttention,
  type AttendOptions,
  type MultiheadAttentionOptions,
} from "./multihead-attention.js";
export { LayerNorm, RMSNorm, type NormOptions } from "./norm.js";
export { PixelShuffle, PixelUnshuffle } from "./pixel-shuffle.js";
export {
  AdaptiveAvgPool1d,
  AdaptiveAvgPool2d,
  AdaptiveAvgPool3d,
  AvgPool1d,
  AvgPool2d,
  AvgPool3d,
  MaxPool1d,
  MaxPool2d,
  MaxPool3d,
  type AvgPoolOptions,
  type OutputSize,
  type PoolOptions,
} from "./pool.js";
export type { RecurrentOptions } from "./recurrent.js";
export { Sequential } from "./sequential.js";
export { LogSoftmax, Softmax } from "./softmax.js";
export { Interpolate, interpolate, Upsample, type UpsampleMode, type UpsampleOptions } from "./upsample.js";
