/** The events of a fine-tuning run: what the command line, a dashboard and an app's own window all read. */
import type { DataReport } from "../data/report.js";
import type { MatmulPrecision } from "../scope.js";
import type { Evaluation } from "./evaluate.js";

/** Once, before the first step: what will be done, where, and why there. */
export interface StartEvent {
  type: "start";
  /** The folder that the model was loaded from. */
  model: string;
  /** `model_type` of its config.json. */
  family: string;
  /** Values in the model, the adapter's among them, and those of them that train. */
  parameters: number;
  trainable: number;
  /** How many layers carry an adapter, and the last parts of their names, such as `q_proj`. */
  adapted: number;
  targets: string[];
  rank: number;
  alpha: number;
  /** Which device trains (`cpu`, `gpu:0`), what it is called, and why it was chosen. */
  device: string;
  deviceName: string;
  deviceReason: string;
  dtype: string;
  matmulPrecision: MatmulPrecision;
  /** Rows that train and rows that are held out. */
  examples: number;
  evalExamples: number;
  /** Tokens that are trained on in one epoch; of a classifier rows. */
  tokens: number;
  /** What became of each data file's rows: how many were cut or left out. */
  data?: readonly DataReport[] | undefined;
  /** The names of a classifier's classes. */
  labels?: readonly string[];
  steps: number;
  stepsPerEpoch: number;
  batchSize: number;
  gradientAccumulation: number;
  maxLength: number;
  learningRate: number;
  schedule: string;
  warmup: number;
  seed: number;
  output: string;
  /** The step that the run goes on from; 0 for a new one. */
  resumedFrom: number;
}

export interface StepEvent {
  type: "step";
  /** Optimizer steps done, of how many. */
  step: number;
  steps: number;
  /** Mean over the trained tokens of the whole step; of a classifier over its rows. */
  loss: number;
  learningRate: number;
  /** The norm over all trained parameters, before clipping. */
  gradNorm: number;
  /** Trained tokens since the run began, those before a resume left out. */
  tokens: number;
  /** Tokens read, padding left out, per second, over the last steps. */
  tokensPerSecond: number;
  etaSeconds: number;
  /** Bytes that the device holds: the pool's, and those of mapped weights. */
  memoryBytes: number;
  /** How many steps this event stands for; more than 1 when nobody read in time. */
  merged: number;
}

/** Figures over the held-out data. */
export interface EvalEvent extends Evaluation {
  type: "eval";
  /** Optimizer steps done; 0 is the model before training. */
  step: number;
}

export interface CheckpointEvent {
  type: "checkpoint";
  step: number;
  path: string;
}

/** While data is read through and tokenised, a few times a second; short work tells nothing. */
export interface ProgressEvent {
  type: "progress";
  stage: "read" | "tokenise";
  file: string;
  /** Bytes of the file so far, and in all; null of a stream that has not ended. */
  bytesRead: number;
  bytes: number | null;
  /** Token ids so far. */
  tokens: number;
}

export interface WarningEvent {
  type: "warning";
  message: string;
}

/** What an operation of a profiled run came to, in one of its passes. */
export interface OperationProfile {
  operation: string;
  pass: "forward" | "replay" | "backward" | "update" | "other";
  calls: number;
  /** Milliseconds of recording, and of the device; 0 of a device that tells no time. */
  hostMs: number;
  deviceMs: number;
  bytesRead: number;
  bytesWritten: number;
  flops: number;
  /** What it would have taken at the device's peaks. */
  attainableMs: number;
}

/** Before the end of a run with `profile`: the file is written. */
export interface ProfileEvent {
  type: "profile";
  path: string;
  /** That it spans. */
  seconds: number;
  /** The device's peaks, measured: f32 products, and bytes read and written; 0 where it tells no time. */
  flopsPerSecond: number;
  bytesPerSecond: number;
  /** Events that are not in the file, since it had enough. */
  leftOut: number;
  /** Longest first. */
  operations: OperationProfile[];
}

/** Last: what `await run.result` gives, too. */
export interface EndEvent extends FinetuneResult {
  type: "end";
  seconds: number;
}

export interface FinetuneResult {
  /**
   * The adapter's folder; of a run that was stopped, in a folder that holds the adapter of one that was not, its
   * checkpoint, which is an adapter, too. Empty where a run was stopped before its first step, and nothing was saved.
   */
  adapter: string;
  /** The last step's loss, and the last evaluation's; null when there was none. */
  loss: number | null;
  evalLoss: number | null;
  /** Steps done. */
  steps: number;
  /** Whether `stop()` ended it before its last step. */
  stopped: boolean;
  /** With `patience`: the step whose adapter this is, and whether the run ended before its last step for it. */
  best?: { step: number; loss: number; early: boolean };
}

export type TrainEvent =
  | ProgressEvent
  | StartEvent
  | StepEvent
  | EvalEvent
  | CheckpointEvent
  | WarningEvent
  | ProfileEvent
  | EndEvent;

/** What the loop over steps tells of, whatever is trained. */
export type LoopEvent = StepEvent | EvalEvent | CheckpointEvent | WarningEvent;
