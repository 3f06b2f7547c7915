/** The events of a fine-tuning run: what the command line, a dashboard and an app's own window all read. */
import type { TextPart } from "../data/parts.js";
import type { DataReport } from "../data/report.js";
import type { Priority } from "../cpu-use.js";
import type { MatmulPrecision } from "../scope.js";
import type { Evaluation } from "./evaluate.js";
import type { HeldMemory } from "./memory/held.js";
import type { OptimizerType } from "./optimizer-defaults.js";

/** Once, before the first step: what will be done, where, and why there. */
export interface StartEvent {
  /** Tells it from the other events. */
  type: "start";
  /** The folder that the model was loaded from. */
  model: string;
  /** `model_type` of its config.json. */
  family: string;
  /** Values in the model, the adapter's among them. */
  parameters: number;
  /** Those of them that train. */
  trainable: number;
  /** How many layers carry an adapter. */
  adapted: number;
  /** The last parts of their names, such as `q_proj`, each once. */
  targets: string[];
  /** The folder of the adapter that the run started from; left out of a run that began with a fresh one. */
  adapter?: string | undefined;
  /** The adapter's rank, where `rankPattern` gives no other. */
  rank: number;
  /** The adapter's `loraAlpha`, where `alphaPattern` gives no other. */
  alpha: number;
  /** Which device trains: `cpu`, `gpu:0`. */
  device: string;
  /** What the device is called. */
  deviceName: string;
  /** Why it was chosen, in words. */
  deviceReason: string;
  /** The most threads that compute at a time; left out of a run on a GPU. */
  threads?: number | undefined;
  /** The priority of the engine's threads. */
  priority?: Priority | undefined;
  /** How the frozen weights are stored, told by the first of the model's tensors. */
  dtype: string;
  /** How the weights that are quantised are stored, most of them by what is named first; left out where none is. */
  quantize?: string | undefined;
  /** How products by bf16 weights are computed. */
  matmulPrecision: MatmulPrecision;
  /** Rows that train. */
  examples: number;
  /** Rows that are held out; 0 without any. */
  evalExamples: number;
  /** Tokens that are trained on in one epoch; of a classifier rows. */
  tokens: number;
  /** What became of each data file's rows: how many were cut or left out. */
  data?: readonly DataReport[] | undefined;
  /** The names of a classifier's classes. */
  labels?: readonly string[] | undefined;
  /** Optimizer steps of the whole run, those before a resume among them. */
  steps: number;
  /** Optimizer steps of an epoch. */
  stepsPerEpoch: number;
  /** Rows of a batch. */
  batchSize: number;
  /** Batches to an optimizer step. */
  gradientAccumulation: number;
  /** Tokens that a row may have; a longer one is cut. */
  maxLength: number;
  /** Sequences that the rows share; only of a run that packs them, whose batches are of sequences. */
  sequences?: number | undefined;
  /** Which optimizer trains. */
  optimizer: OptimizerType;
  /** The highest rate, which the schedule multiplies. */
  learningRate: number;
  /** How the rate goes on after the warm-up: `linear`, `cosine` or `constant`. */
  schedule: string;
  /** Steps in which the rate rises from 0. */
  warmup: number;
  /** What shuffling, dropout and fresh adapters are drawn from. */
  seed: number;
  /** The folder that the adapter is written into. */
  output: string;
  /** What it will hold of the device; left out of a model of which nothing says that. */
  memory?: PlannedMemory | undefined;
  /** The step that the run goes on from; 0 for a new one. */
  resumedFrom: number;
}

/** What a run will hold of its device, as `estimate` says it. Bytes. */
export interface PlannedMemory extends HeldMemory {
  /** What it may hold; left out where nothing says. */
  limit?: number | undefined;
  /** What `memory` chose otherwise than it was asked for, and what that costs: a sentence each. */
  chosen: readonly string[];
}

/** After an optimizer step, or several of them where nobody read in time. */
export interface StepEvent {
  /** Tells it from the other events. */
  type: "step";
  /** Optimizer steps done. */
  step: number;
  /** Optimizer steps of the whole run. */
  steps: number;
  /** Mean over the trained tokens of the whole step; of a classifier over its rows. */
  loss: number;
  /** The rate of this step: of several groups the first one's. */
  learningRate: number;
  /** The norm over all trained parameters, before clipping. */
  gradNorm: number;
  /** Trained tokens since the run began, those before a resume left out. */
  tokens: number;
  /** Tokens read, padding left out, per second, over the last steps. */
  tokensPerSecond: number;
  /** Seconds that the remaining steps will take at the present pace. */
  etaSeconds: number;
  /** Bytes that the device holds: the pool's, and those of mapped weights. */
  memoryBytes: number;
  /** Values that the loss function of a `Trainer` returned, by name: means over the batches of the step. */
  metrics?: Readonly<Record<string, number>> | undefined;
  /** How many steps this event stands for; more than 1 when nobody read in time. */
  merged: number;
}

/** Figures over the held-out data. */
export interface EvalEvent extends Evaluation {
  /** Tells it from the other events. */
  type: "eval";
  /** Optimizer steps done; 0 is the model before training. */
  step: number;
}

/** What the model makes of one prompt. */
export interface SampleText {
  /** The beginning of a row, as the model is given it. */
  prompt: string;
  /** What follows of the model alone. */
  base: string;
  /** What follows with the adapter as it is. */
  tuned: string;
}

/** After an evaluation, where a dashboard is on: texts before and after. Only of a language model. */
export interface SampleEvent {
  /** Tells it from the other events. */
  type: "sample";
  /** Optimizer steps done. */
  step: number;
  /** One for each prompt: the first held-out rows, or of those that train where none is held out. */
  texts: SampleText[];
}

/** After the start: the first rows as they are trained on. */
export interface RowsEvent {
  /** Tells it from the other events. */
  type: "rows";
  /** Each as far as 512 tokens. */
  rows: TextPart[][];
}

/** A checkpoint is on the disk, whole. */
export interface CheckpointEvent {
  /** Tells it from the other events. */
  type: "checkpoint";
  /** Optimizer steps that it was saved after. */
  step: number;
  /** Its folder; of a `Trainer` whose `save` is a function the path that this gave. */
  path: string;
}

/** A run has paused between two steps, by `pause()`, and keeps everything in memory. */
export interface PausedEvent {
  /** Tells it from the other events. */
  type: "paused";
  /** Optimizer steps done. */
  step: number;
}

/** A paused run continues. One that is stopped or aborted while it is paused only ends. */
export interface ResumedEvent {
  /** Tells it from the other events. */
  type: "resumed";
  /** Optimizer steps done. */
  step: number;
  /** How long the pause was. */
  seconds: number;
}

/** While data is read through and tokenised, a few times a second; short work tells nothing. */
export interface ProgressEvent {
  /** Tells it from the other events. */
  type: "progress";
  /** Whether rows are read through, or made into token ids, or the model is fetched from a hub. */
  stage: "read" | "tokenise" | "download";
  /** The data file that is worked on; of a model the file that is fetched, behind the model's name. */
  file: string;
  /** Bytes of the file so far; of a model, of all files that are fetched. */
  bytesRead: number;
  /** Bytes of the whole file, or of all that are fetched; null of a stream that has not ended. */
  bytes: number | null;
  /** Token ids so far. */
  tokens: number;
}

/** Something that the user should know, and that does not end the run. */
export interface WarningEvent {
  /** Tells it from the other events. */
  type: "warning";
  /** One sentence, for people. */
  message: string;
}

/** What an operation of a profiled run came to, in one of its passes. */
export interface OperationProfile {
  /** The engine's name of the operation. */
  operation: string;
  /** Of what it was a part: `replay` is forward run again by gradient checkpointing, `update` the optimizer. */
  pass: "forward" | "replay" | "backward" | "update" | "other";
  /** How often it ran. */
  calls: number;
  /** Milliseconds that recording it took on the host, over all calls. */
  hostMs: number;
  /** Milliseconds that it took on the device, over all calls; 0 of a device that tells no time. */
  deviceMs: number;
  /** Bytes that its definition reads, over all calls. */
  bytesRead: number;
  /** Bytes that its definition writes, over all calls. */
  bytesWritten: number;
  /** Floating-point operations by its definition, over all calls. */
  flops: number;
  /** What it would have taken at the device's peaks. */
  attainableMs: number;
}

/** Before the end of a run with `profile`: the file is written. */
export interface ProfileEvent {
  /** Tells it from the other events. */
  type: "profile";
  /** The trace, as Perfetto opens it. */
  path: string;
  /** Seconds that the trace spans. */
  seconds: number;
  /** The device's peak in f32 products, measured; 0 where it tells no time. */
  flopsPerSecond: number;
  /** The device's peak in bytes read and written, measured; 0 where it tells no time. */
  bytesPerSecond: number;
  /** Events that are not in the file, since it had enough. */
  leftOut: number;
  /** Every operation in each of its passes, the longest first. */
  operations: OperationProfile[];
}

/** Last: what `await run.result` gives, too. */
export interface EndEvent extends FinetuneResult {
  /** Tells it from the other events. */
  type: "end";
  /** How long the run took, pauses included. */
  seconds: number;
}

/** What a fine-tuning run came to. */
export interface FinetuneResult {
  /**
   * The adapter's folder; of a run that was stopped, in a folder that holds the adapter of one that was not, its
   * checkpoint, which is an adapter, too. Empty where a run was stopped before its first step, and nothing was saved.
   */
  adapter: string;
  /** The last step's loss; null when there was none. */
  loss: number | null;
  /** The last evaluation's; null when there was none. */
  evalLoss: number | null;
  /** Steps done, those before a resume among them. */
  steps: number;
  /** Whether `stop()` ended it before its last step. */
  stopped: boolean;
  /** With `patience`: which evaluation was the best, whose adapter this is. */
  best?:
    | {
        /** Optimizer steps done then. */
        step: number;
        /** The held-out loss then. */
        loss: number;
        /** Whether the run ended before its last step, since no later evaluation was better. */
        early: boolean;
      }
    | undefined;
}

/** First, of a run with `dashboard`: where its page is. It is told to whoever started the run, and not recorded. */
export interface DashboardEvent {
  /** Tells it from the other events. */
  type: "dashboard";
  /** The page's address; whoever has it sees the run, and may stop it. */
  url: string;
}

/** What a run of `finetune` tells of, told apart by `type`. */
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

/** What the loop over steps tells of, whatever is trained. */
export type LoopEvent = StepEvent | EvalEvent | CheckpointEvent | PausedEvent | ResumedEvent | WarningEvent;
