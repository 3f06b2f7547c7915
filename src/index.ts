/**
 * The public API of lowrank. Importing it has no side effects: the engine and the asynchronous functions are loaded at
 * first use.
 */
import { loadLazily } from "./package/lazy.js";

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
} from "./tensor/create.js";
export { eye, fullLike, linspace, onesLike, zerosLike, type LikeOptions } from "./tensor/create-patterns.js";
export { bernoulli, multinomial, randint, randperm, type RandomOptions } from "./tensor/create-random.js";
export type { CpuUse, CurrentCpuUse, Priority } from "./device/cpu-use.js";
export type { TextPart } from "./data/parts.js";
export type { Numbering } from "./data/source/origin.js";
export type { ChatReport, CopiedRows, CountedRows, DataReport, UnusedField } from "./data/report.js";
export type { Row, RowsInMemory, TrainingData } from "./data/given.js";
export type { SpokenText, SpokenTexts } from "./data/speech.js";
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
} from "./device/device.js";
export type {
  DiagnosedDevice,
  DiagnosedTraining,
  Diagnosis,
  DiagnoseOptions,
  DiagnoseProgress,
  GpuDetails,
  KnownHazard,
} from "./diagnose/diagnosis.js";
export { LowrankError, type ErrorCode } from "./errors.js";
export type { StepResult, WrongNumbers } from "./self-test/steps.js";
export type { Rates } from "./diagnose/rates.js";
export * as gguf from "./gguf/read.js";
export * as lora from "./lora/index.js";
export {
  BertForSequenceClassification,
  BertModel,
  RobertaForSequenceClassification,
  RobertaModel,
} from "./models/bert/model.js";
export type { ActivationName } from "./models/activation.js";
export type { AttentionLabels } from "./models/attention.js";
export type {
  BertAttention,
  BertIntermediate,
  BertLayer,
  BertOutput,
  BertSelfAttention,
} from "./models/bert/block.js";
export type { BertConfig, BertConfigFields } from "./models/bert/config.js";
export type { BertEmbeddings } from "./models/bert/embeddings.js";
export type { BertEncoder, BertPooler, RobertaClassificationHead } from "./models/bert/model.js";
export type { DistilBertBlock, DistilBertFFN, DistilBertSelfAttention } from "./models/distilbert/block.js";
export type { DistilBertConfig, DistilBertConfigFields } from "./models/distilbert/config.js";
export type { DistilBertEmbeddings } from "./models/distilbert/embeddings.js";
export {
  DistilBertForSequenceClassification,
  DistilBertModel,
  type DistilBertTransformer,
} from "./models/distilbert/model.js";
export type { LayerCache } from "./models/cache.js";
export { Classifier, SequenceClassifier } from "./models/classifier.js";
export type { Classified, ClassifyOptions } from "./models/classify.js";
export { CausalLM, type CausalConfig } from "./models/causal-lm.js";
export type { GgufBlock, GgufType } from "./gguf/types.js";
export type { EmbedOptions } from "./models/embed.js";
export { TextEncoder } from "./models/encoder.js";
export type {
  BatchEncoding,
  BatchPlaces,
  EncodeBatchOptions,
  EncodeOptions,
  Encoding,
  Offset,
  Truncation,
} from "./models/encoding.js";
export type { Task } from "./models/family.js";
export type { FromConfigOptions } from "./models/from-config.js";
export type { GenerateOptions, SamplingOptions } from "./models/generate-options.js";
export type { GenerateBatchOptions, Pieces } from "./models/generate-batch.js";
export type { Message, Piece, Prompt } from "./models/generate.js";
export type { TokenLogprob } from "./models/logprobs.js";
export type { LossReduction } from "./models/head-loss.js";
export type { GPT2Attention, GPT2Block, GPT2MLP } from "./models/gpt2/block.js";
export type { GPT2Config, GPT2ConfigFields } from "./models/gpt2/config.js";
export { GPT2LMHeadModel, type GPT2Model } from "./models/gpt2/model.js";
export type { LabelConfig, ProblemType } from "./models/labels.js";
export type { Gemma3Block, Gemma3MLP } from "./models/gemma3/block.js";
export type { Gemma3Config, Gemma3ConfigFields } from "./models/gemma3/config.js";
export { Gemma3ForCausalLM, type Gemma3TextModel } from "./models/gemma3/model.js";
export { Gemma3RMSNorm } from "./models/gemma3/norm.js";
export type { Phi3Attention, Phi3Block, Phi3MLP } from "./models/phi3/block.js";
export type { Phi3Config, Phi3ConfigFields } from "./models/phi3/config.js";
export { Phi3ForCausalLM, type Phi3Model } from "./models/phi3/model.js";
export type { BlockInputs, LlamaAttention } from "./models/decoder/attention.js";
export type { LlamaBlock } from "./models/llama/block.js";
export type { LlamaMLP } from "./models/llama/mlp.js";
export type { LlamaConfig, LlamaConfigFields } from "./models/llama/config.js";
export { LlamaForCausalLM, type LlamaModel } from "./models/llama/model.js";
export type { RopeConfig, RopeScaling } from "./models/decoder/rope.js";
export type { Rotation } from "./models/decoder/rotary.js";
export type { DownloadProgress } from "./hub/settings.js";
export type { LoadOptions, TaskModels } from "./models/files/load.js";
export type { Quantization } from "./models/quantization.js";
export {
  PretrainedModel,
  type ForwardOptions,
  type ForwardOutput,
  type LossOptions,
  type ModelOutput,
} from "./models/pretrained.js";
export type { SaveModelOptions } from "./models/files/save.js";
export {
  Tokenizer,
  type ChatTemplateOptions,
  type DecodeOptions,
  type DecodeStream,
  type EncodeAllOptions,
} from "./models/tokenizer.js";
export type { ViTAttention, ViTLayer, ViTMLP } from "./models/vit/block.js";
export type { ViTConfig, ViTConfigFields } from "./models/vit/config.js";
export type { ViTEmbeddings, ViTPatchEmbeddings } from "./models/vit/embeddings.js";
export { ViTForImageClassification, type ViTModel } from "./models/vit/model.js";
export {
  SpeechToText,
  type SpeechForwardOptions,
  type SpeechOutput,
  type SpeechTask,
  type TranscribeOptions,
  type Transcription,
} from "./models/speech-to-text.js";
export type { KeysAndValues, WhisperAttention } from "./models/whisper/attention.js";
export type { DecoderInputs, WhisperDecoderLayer, WhisperEncoderLayer } from "./models/whisper/block.js";
export type { WhisperConfig, WhisperConfigFields } from "./models/whisper/config.js";
export type { SpeechCache, WhisperDecoder } from "./models/whisper/decoder.js";
export type { WhisperEncoder } from "./models/whisper/encoder.js";
export type { WhisperGeneration } from "./models/whisper/generation.js";
export { WhisperForConditionalGeneration, type WhisperModel } from "./models/whisper/model.js";
export * as nn from "./nn/index.js";
export * as optim from "./optim/index.js";
export { manualSeed } from "./tensor/random.js";
export * as safetensors from "./files/safetensors.js";
export {
  checkpoint,
  cpuUse,
  noGrad,
  scope,
  setCpuUse,
  setMatmulPrecision,
  withCpuUse,
  withMatmulPrecision,
  type MatmulPrecision,
} from "./tensor/scope.js";
export { Tensor, type BlockDType, type DType, type FloatDType } from "./tensor/tensor.js";
export { einsum } from "./tensor/einsum.js";
export type { MultinomialOptions } from "./tensor/drawing.js";
export type { GeluOptions, SoftplusOptions } from "./tensor/elementwise.js";
export type { PadOptions } from "./tensor/layout.js";
export type { CrossEntropyOptions, MatmulOptions } from "./tensor/products.js";
export type { Dims, NormOptions, ReduceOptions, VarianceOptions } from "./tensor/reductions.js";
export type { Sorted, SortOptions, TopkOptions } from "./tensor/sorting.js";
export type { InspectedAdapter, InspectedFit, InspectedRank } from "./inspect/adapter.js";
export type { Contents } from "./inspect/contents.js";
export type { InspectedClass, InspectedData, InspectedPacking, LengthBin } from "./inspect/data.js";
export type { Inspected, InspectOptions } from "./inspect/inspect.js";
export type { InspectedModel, InspectedTarget } from "./inspect/model.js";
export type { LogFormat } from "./runs/metrics.js";
export type { ClassScores, Evaluation } from "./train/evaluate.js";
export type {
  CheckpointEvent,
  DashboardEvent,
  EndEvent,
  EvalEvent,
  FinetuneResult,
  LoopEvent,
  OperationProfile,
  PausedEvent,
  DeviceMemory,
  PlannedMemory,
  ProfileEvent,
  ProgressEvent,
  ResumedEvent,
  RowsEvent,
  SampleEvent,
  SampleText,
  StartEvent,
  StepEvent,
  TrainEvent,
  WarningEvent,
} from "./train/events.js";
export { finetune } from "./train/finetune/finetune.js";
export type { DashboardAddress, DashboardOptions, FinetuneRun } from "./train/finetune/finetune-run.js";
export type { Suggestion } from "./train/memory/choices.js";
export type { DeviceEstimate, Estimate } from "./train/memory/estimate.js";
export type { HeldMemory } from "./train/held-memory.js";
export type { OffloadedBytes } from "./models/offload.js";
export type { FinetuneOptions, ScheduleName, StorageType } from "./train/options.js";
export type { Ranks } from "./ranks/ranks.js";
export type { Queued } from "./train/queue.js";
export type { Run } from "./train/run.js";
export type {
  EventOfTrial,
  GroupEvent,
  SweepEndEvent,
  SweepEvent,
  SweepResult,
  SweepStartEvent,
  TrialEndEvent,
  TrialState,
  TrialSummary,
} from "./train/sweep/events.js";
export type { HalvingOptions, SweepOptions } from "./train/sweep/options.js";
export type { Range, Space, Values, ValuesOf } from "./train/sweep/space.js";
export { sweep, type SweepRun } from "./train/sweep/sweep.js";
export { Trainer, type TrainerOptions } from "./train/trainer/trainer.js";
export type { EvaluationRecord, StepRecord, TrainerHistory } from "./train/trainer/history.js";
export type { Stored } from "./train/trainer/checkpoint.js";
export type { LossMetrics, LossResult } from "./train/trainer/metrics.js";
export type { Batches, BatchSource } from "./train/trainer/data.js";
export type {
  TrainerEndEvent,
  TrainerEvent,
  TrainerStartEvent,
  TrainResult,
} from "./train/trainer/events.js";

/**
 * Loads a model in evaluation mode: from a folder with `config.json`, `model.safetensors` (or shards) and
 * `tokenizer.json`, from a GGUF file, or from a hub as `owner/name` or `owner/name@revision`. The class depends on `task`,
 * or without it on `architectures`; the static type without `task` is a causal language model. On the CPU, weights are
 * memory-mapped.
 *
 * Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_UNSUPPORTED_MODEL`, `ERR_UNMATCHED_KEY`, `ERR_SHAPE_MISMATCH`,
 * `ERR_OPTION`, `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`; for a hub model also `ERR_HUB`, `ERR_WRITE`; the signal's reason.
 */
export const loadModel = loadLazily(async () => (await import("./models/files/load.js")).loadModel);
/**
 * Writes a model as a folder that transformers can load: weights, `config.json`, and the tokenizer files of its original
 * folder. A path that ends in `.gguf` writes a language model as one file for llama.cpp, where `dtype` may also be `q8_0`
 * or `q4_0`. The output is written to a staging path and renamed at the end. Throws `ERR_OPTION` for a model with adapters
 * (save them separately or merge them first) and for models that llama.cpp would compute differently;
 * `ERR_OUTPUT_EXISTS` for a folder that is not empty or an existing file, `ERR_DTYPE` for a value beyond f16,
 * `ERR_UNSUPPORTED_MODEL`, `ERR_NOT_FINITE`, `ERR_WRITE`; the signal's reason.
 */
export const saveModel = loadLazily(async () => (await import("./models/files/save.js")).saveModel);
/**
 * Describes the contents of a path, as `lowrank inspect` prints them: a model, an adapter and whether it fits a model, or
 * the rows of a data file that a run would train on. For models and adapters only headers are read, no weights.
 *
 * Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT` for unknown contents, `ERR_OPTION`; for data the errors of `finetune`;
 * for a hub model `ERR_HUB`, `ERR_WRITE`; the signal's reason.
 */
export const inspect = loadLazily(async () => (await import("./inspect/inspect.js")).inspect);
/**
 * Estimates the device memory of a `finetune` run with these options, by weights, adapters, optimizer and activations.
 * Reports whether it fits, and if not, options that would. No weights are read and nothing is computed: the first steps
 * are recorded on a meta device.
 *
 * Throws the errors of `finetune` before its first step: `ERR_OPTION`, `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`,
 * `ERR_DATA_ROW` and the errors of `loadModel` and `lora.inject`; `ERR_OUT_OF_MEMORY` for a tensor larger than the
 * device's largest buffer; the signal's reason.
 */
export const estimate = loadLazily(async () => (await import("./train/memory/estimate.js")).estimate);
/**
 * Tests devices: every kernel family forward and backward against the CPU, training steps, and performance. This takes
 * about a minute. Each device is tested in a separate process, so that a crash or hang becomes a result. The results of
 * GPUs are stored for `auto`, which only uses GPUs that have passed.
 *
 * Throws `ERR_OPTION`; `ERR_NO_GPU` for a missing GPU; `ERR_INTERNAL` in a bundle, where the test process cannot be
 * started; the signal's reason.
 */
export const diagnose = loadLazily(async () => (await import("./diagnose/diagnose.js")).diagnose);
