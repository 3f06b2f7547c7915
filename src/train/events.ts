/** The events of a fine-tuning run, which the command line, the dashboard and an app's window read. */
import type { TextPart } from "../data/parts.js";
import type { DataReport } from "../data/report.js";
import type { Priority } from "../device/cpu-use.js";
import type { MatmulPrecision } from "../tensor/scope.js";
import type { Evaluation } from "./evaluate.js";
import type { HeldMemory } from "./held-memory.js";
import type { OptimizerType } from "./options/optimizer-defaults.js";

/** Emitted once, before the first step: the plan, the device, and the reason for that device. */
export interface StartEvent {
  /** Identifies the event. */
  type: "start";
  /** The folder that the model was loaded from. */
  model: string;
  /** `model_type` of its config.json. */
  family: string;
  /** The number of values in the model, including the adapter. */
  parameters: number;
  /** The number of trainable values. */
  trainable: number;
  /** The number of layers with an adapter. */
  adapted: number;
  /** The last parts of the adapted layers' names, such as `q_proj`, without duplicates. */
  targets: string[];
  /** The folder of the adapter that the run started from; absent if it started from a new one. */
  adapter?: string | undefined;
  /** The adapter's rank, where `rankPattern` does not override it. */
  rank: number;
  /** The adapter's `loraAlpha`, where `alphaPattern` does not override it. */
  alpha: number;
  /** The device that trains, for example `cpu` or `gpu:0`. */
  device: string;
  /** The device's name. */
  deviceName: string;
  /** The reason for choosing the device, as a text. */
  deviceReason: string;
  /** Each of several devices that divide the rows of a step, the first included; absent for one device. */
  devices?:
    | readonly {
        /** The device, for example `gpu:1`. */
        device: string;
        /** The device's name. */
        name: string;
        /** Its rows, or sequences, of a full step. */
        rows: number;
      }[]
    | undefined;
  /** Each process that trains on a part of the rows, in rank order; absent for one process. */
  ranks?:
    | readonly {
        /** The name of its machine. */
        host: string;
        /** The number of its process there, by which launchers name it. */
        pid: number;
        /** Its devices. */
        devices: readonly string[];
        /** Its rows, or sequences, of a full step. */
        rows: number;
      }[]
    | undefined;
  /** The maximum number of threads that compute at once; absent on a GPU. */
  threads?: number | undefined;
  /** The priority of the engine's threads. */
  priority?: Priority | undefined;
  /** The storage type of the frozen weights, taken from the model's first tensor. */
  dtype: string;
  /** The storage formats of the quantised weights, the most common first; absent if no weight is quantised. */
  quantize?: string | undefined;
  /** The precision of products with bf16 weights. */
  matmulPrecision: MatmulPrecision;
  /** The number of training rows. */
  examples: number;
  /** The number of held-out rows; 0 if there are none. */
  evalExamples: number;
  /** The number of trained tokens in one epoch; for a classifier, of rows. */
  tokens: number;
  /** For each data file, the number of rows that were truncated or skipped. */
  data?: readonly DataReport[] | undefined;
  /** The names of a classifier's classes. */
  labels?: readonly string[] | undefined;
  /** Optimizer steps of the whole run, including those before a resume. */
  steps: number;
  /** Optimizer steps per epoch. */
  stepsPerEpoch: number;
  /** Rows per batch. */
  batchSize: number;
  /** Batches per optimizer step. */
  gradientAccumulation: number;
  /** The maximum number of tokens in a row; longer rows are truncated. */
  maxLength: number;
  /** The number of packed sequences; present only with packing, where a batch consists of sequences. */
  sequences?: number | undefined;
  /** The optimizer's type. */
  optimizer: OptimizerType;
  /** The peak learning rate, which the schedule multiplies. */
  learningRate: number;
  /** The schedule of the learning rate after the warm-up: `linear`, `cosine` or `constant`. */
  schedule: string;
  /** The number of steps over which the learning rate rises from 0. */
  warmup: number;
  /** The seed of shuffling, dropout and new adapters. */
  seed: number;
  /** The folder that the adapter is written into. */
  output: string;
  /** The planned memory use on the device; absent for a model without an estimate. */
  memory?: PlannedMemory | undefined;
  /** The step that the run resumes from; 0 for a new run. */
  resumedFrom: number;
}

/** The predicted memory use of one of several devices, in bytes. */
export interface DeviceMemory extends HeldMemory {
  /** The device, for example `gpu:1`. */
  device: string;
}

/** The predicted memory use of a run on its device, in bytes, as `estimate` computes it. */
export interface PlannedMemory extends HeldMemory {
  /** The memory limit; absent if it is unknown. */
  limit?: number | undefined;
  /** The same for each further device; absent for one device. */
  further?: readonly DeviceMemory[] | undefined;
  /** The options that `memory` changed, with the cost of each change: one sentence each. */
  chosen: readonly string[];
}

/** Emitted after an optimizer step. Steps that are not read in time are merged into one event. */
export interface StepEvent {
  /** Identifies the event. */
  type: "step";
  /** Completed optimizer steps. */
  step: number;
  /** Optimizer steps of the whole run. */
  steps: number;
  /** The mean over the trained tokens of the whole step; for a classifier, over its rows. */
  loss: number;
  /** The learning rate of this step; with several parameter groups, the first group's. */
  learningRate: number;
  /** The norm of the gradients of all trained parameters, before clipping. */
  gradNorm: number;
  /** Trained tokens since the run began, excluding those before a resume. */
  tokens: number;
  /** Tokens read per second over the last steps, excluding padding. */
  tokensPerSecond: number;
  /** Estimated seconds until the last step, at the present pace. */
  etaSeconds: number;
  /** Bytes held on the device: the buffer pool and mapped weights; the sum over several devices. */
  memoryBytes: number;
  /** The figures of each rank, in rank order; absent for one process. */
  ranks?:
    | readonly {
        /** Tokens that the rank computes per second, without its waits for other ranks. */
        tokensPerSecond: number;
        /** Bytes held on its devices. */
        memoryBytes: number;
      }[]
    | undefined;
  /** Values that the loss function of a `Trainer` returned, by name: means over the batches of the step. */
  metrics?: Readonly<Record<string, number>> | undefined;
  /** The number of steps in this event; more than 1 if steps were not read in time. */
  merged: number;
}

/** Emitted after an evaluation of the held-out data. */
export interface EvalEvent extends Evaluation {
  /** Identifies the event. */
  type: "eval";
  /** Completed optimizer steps; 0 is the model before training. */
  step: number;
}

/** Generated continuations of one prompt. */
export interface SampleText {
  /** The beginning of a row, as the model receives it. */
  prompt: string;
  /** The continuation by the base model. */
  base: string;
  /** The continuation with the current adapter. */
  tuned: string;
}

/** Emitted after an evaluation while a dashboard is open: generated texts. Only for language models. */
export interface SampleEvent {
  /** Identifies the event. */
  type: "sample";
  /** Completed optimizer steps. */
  step: number;
  /** One for each prompt. Prompts are the first held-out rows, or the first training rows if none is held out. */
  texts: SampleText[];
}

/** Emitted after the start: the first rows, as the model trains on them. */
export interface RowsEvent {
  /** Identifies the event. */
  type: "rows";
  /** Each row, truncated to 512 tokens. */
  rows: TextPart[][];
}

/** Emitted once a complete checkpoint is on the disk. */
export interface CheckpointEvent {
  /** Identifies the event. */
  type: "checkpoint";
  /** Completed optimizer steps. */
  step: number;
  /** The checkpoint's folder; for a `Trainer` with a `save` function, the path that the function returned. */
  path: string;
}

/** Emitted when `pause()` has paused the run between two steps. Everything stays in memory. */
export interface PausedEvent {
  /** Identifies the event. */
  type: "paused";
  /** Completed optimizer steps. */
  step: number;
}

/** Emitted when a paused run continues, but not when it is stopped or aborted while paused. */
export interface ResumedEvent {
  /** Identifies the event. */
  type: "resumed";
  /** Completed optimizer steps. */
  step: number;
  /** The duration of the pause. */
  seconds: number;
}

/** Emitted a few times a second while data is read and tokenised or a model is downloaded; not for short work. */
export interface ProgressEvent {
  /** Identifies the event. */
  type: "progress";
  /** `read` reads rows, `tokenise` converts them to token ids, and `download` fetches the model from a hub. */
  stage: "read" | "tokenise" | "download";
  /** The current data file; for a download, the model's name followed by the file's. */
  file: string;
  /** Bytes of the file so far; for a download, of all its files. */
  bytesRead: number;
  /** Total bytes of the file or the download; null for a stream that has not ended. */
  bytes: number | null;
  /** Token ids so far. */
  tokens: number;
}

/** Emitted for a problem that does not end the run. */
export interface WarningEvent {
  /** Identifies the event. */
  type: "warning";
  /** One sentence for the user. */
  message: string;
}

/** The totals of one operation in one pass of a profiled run. */
export interface OperationProfile {
  /** The engine's name of the operation. */
  operation: string;
  /** The pass: `replay` is the forward pass repeated by gradient checkpointing, `update` is the optimizer. */
  pass: "forward" | "replay" | "backward" | "update" | "other";
  /** The number of calls. */
  calls: number;
  /** Milliseconds spent recording it on the host, over all calls. */
  hostMs: number;
  /** Milliseconds spent on the device, over all calls; 0 for a device without timestamps. */
  deviceMs: number;
  /** Bytes read by the operation's definition, over all calls. */
  bytesRead: number;
  /** Bytes written by the operation's definition, over all calls. */
  bytesWritten: number;
  /** Floating-point operations by the operation's definition, over all calls. */
  flops: number;
  /** Milliseconds that it would take at the device's peak rates. */
  attainableMs: number;
}

/** Emitted before the end of a run with `profile`, after the trace is written. */
export interface ProfileEvent {
  /** Identifies the event. */
  type: "profile";
  /** The file of the trace, which Perfetto opens. */
  path: string;
  /** The duration of the trace, in seconds. */
  seconds: number;
  /** The measured peak of f32 products, in operations per second; 0 for a device without timestamps. */
  flopsPerSecond: number;
  /** The measured peak of memory traffic, in bytes read and written; 0 for a device without timestamps. */
  bytesPerSecond: number;
  /** The number of events omitted from the file because it is full. */
  leftOut: number;
  /** Every operation by pass, the longest first. */
  operations: OperationProfile[];
}

/** Emitted last, with the result that `await run.result` returns. */
export interface EndEvent extends FinetuneResult {
  /** Identifies the event. */
  type: "end";
  /** The duration of the run, including pauses. */
  seconds: number;
}

/** The result of a fine-tuning run. */
export interface FinetuneResult {
  /**
   * The adapter's folder. A stopped run does not replace the final adapter of another run in the same folder; this is
   * then the stopped run's checkpoint, which is also an adapter. Empty if nothing was saved before the first step.
   */
  adapter: string;
  /** The loss of the last step; null without one. */
  loss: number | null;
  /** The loss of the last evaluation; null without one. */
  evalLoss: number | null;
  /** Completed steps, including those before a resume. */
  steps: number;
  /** Whether `stop()` ended it before its last step. */
  stopped: boolean;
  /** With `patience`: the best evaluation, which the adapter is from. */
  best?:
    | {
        /** Completed optimizer steps at that evaluation. */
        step: number;
        /** The held-out loss of that evaluation. */
        loss: number;
        /** Whether the run ended before its last step because no later evaluation was better. */
        early: boolean;
      }
    | undefined;
}

/** Emitted first by a run with `dashboard`: the address of its page. It is never recorded. */
export interface DashboardEvent {
  /** Identifies the event. */
  type: "dashboard";
  /** The page's address. Anyone who has it can watch, pause and stop the run. */
  url: string;
}

/** The events of `finetune`, distinguished by `type`. */
export type TrainEvent =
  | DashboardEvent
  | ProgressEvent
  | StartEvent
  | RowsEvent
  | StepEvent
  | EvalEvent
  | SampleEvent
  | CheckpointEvent
  | PausedEvent
  | ResumedEvent
  | WarningEvent
  | ProfileEvent
  | EndEvent;

/** The events of the training loop, which `finetune` and `Trainer` share. */
export type LoopEvent = StepEvent | EvalEvent | CheckpointEvent | PausedEvent | ResumedEvent | WarningEvent;
