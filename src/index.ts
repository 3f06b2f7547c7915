/**
 * The public face of lowrank. Importing it does nothing: the engine is loaded at first use, and so is what is
 * asynchronous.
 */
import { later } from "./later.js";

export {
  arange,
  full,
  ones,
  rand,
  randn,
  tensor,
  zeros,
  type NestedArray,
  type TensorData,
  type TensorOptions,
  type TypedArray,
} from "./create.js";
export {
  chooseDevice,
  devices,
  memory,
  setDefaultDevice,
  synchronize,
  trim,
  type Device,
  type DeviceInfo,
  type Memory,
} from "./device.js";
export { LowrankError, type ErrorCode } from "./errors.js";
export * as lora from "./lora/index.js";
export {
  BertForSequenceClassification,
  BertModel,
  RobertaForSequenceClassification,
  RobertaModel,
} from "./models/bert/model.js";
export type { BertConfigFields } from "./models/bert/config.js";
export { Classifier, SequenceClassifier } from "./models/classifier.js";
export { CausalLM } from "./models/causal-lm.js";
export type { EmbedOptions } from "./models/embed.js";
export { TextEncoder } from "./models/encoder.js";
export type { Task } from "./models/family.js";
export type { FromConfigOptions } from "./models/from-config.js";
export type { GenerateOptions, SamplingOptions } from "./models/generate-options.js";
export type { GenerateBatchOptions, Pieces } from "./models/generate-batch.js";
export type { Message, Piece, Prompt } from "./models/generate.js";
export type { GPT2ConfigFields } from "./models/gpt2/config.js";
export { GPT2LMHeadModel } from "./models/gpt2/model.js";
export type { LlamaConfigFields } from "./models/llama/config.js";
export { LlamaForCausalLM } from "./models/llama/model.js";
export type { LoadOptions } from "./models/load.js";
export {
  PretrainedModel,
  type ForwardOptions,
  type ForwardOutput,
  type LossOptions,
  type ModelOutput,
} from "./models/pretrained.js";
export type { SaveModelOptions } from "./models/save.js";
export { Tokenizer, type DecodeStream } from "./models/tokenizer.js";
export type { ViTConfigFields } from "./models/vit/config.js";
export { ViTForImageClassification } from "./models/vit/model.js";
export * as nn from "./nn/index.js";
export * as optim from "./optim/index.js";
export { manualSeed } from "./random.js";
export * as safetensors from "./safetensors.js";
export {
  checkpoint,
  noGrad,
  scope,
  setMatmulPrecision,
  withMatmulPrecision,
  type MatmulPrecision,
} from "./scope.js";
export { Tensor, type DType } from "./tensor.js";
export { einsum } from "./tensor/einsum.js";
export type { GeluOptions } from "./tensor/elementwise.js";
export type { PadOptions } from "./tensor/layout.js";
export type { CrossEntropyOptions, MatmulOptions } from "./tensor/products.js";
export type { Dims, NormOptions, ReduceOptions, VarianceOptions } from "./tensor/reductions.js";
export type { Sorted, SortOptions, TopkOptions } from "./tensor/sorting.js";
export type { ClassScores } from "./train/evaluate.js";
export type {
  CheckpointEvent,
  EndEvent,
  EvalEvent,
  OperationProfile,
  ProfileEvent,
  FinetuneResult,
  StartEvent,
  StepEvent,
  TrainEvent,
  WarningEvent,
} from "./train/events.js";
export { finetune } from "./train/finetune.js";
export type { FinetuneOptions, ScheduleName, StorageType } from "./train/options.js";
export type { Run } from "./train/run.js";
export { Trainer, type TrainerOptions } from "./train/trainer.js";
export type { Batches, BatchSource } from "./train/trainer-data.js";
export type {
  TrainerEndEvent,
  TrainerEvent,
  TrainerStartEvent,
  TrainResult,
} from "./train/trainer-events.js";

export const loadModel = later(async () => (await import("./models/load.js")).loadModel);
export const saveModel = later(async () => (await import("./models/save.js")).saveModel);
