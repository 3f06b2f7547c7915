/** The events of a `Trainer`. */
import type { MatmulPrecision } from "../../tensor/scope.js";
import type { LoopEvent } from "../events.js";

/** Emitted once by a `Trainer`, before the first step: the plan and the device. */
export interface TrainerStartEvent {
  /** Identifies the event. */
  type: "start";
  /** The name of the model's class. */
  model: string;
  /** The number of values in the model's state. */
  parameters: number;
  /** The number of values that the optimizer trains. */
  trainable: number;
  /** The device that trains (`cpu`, `gpu:0`), which is the device of the parameters. */
  device: string;
  /** The device's name. */
  deviceName: string;
  /** The storage type of the trained parameters. */
  dtype: string;
  /** The precision of products with bf16 weights. */
  matmulPrecision: MatmulPrecision;
  /** Optimizer steps of the whole run; null if they depend on the data. */
  steps: number | null;
  /** Optimizer steps per epoch; null if they depend on the data. */
  stepsPerEpoch: number | null;
  /** Batches per optimizer step. */
  gradientAccumulation: number;
  /** The first group's learning rate, before the schedule. */
  learningRate: number;
  /** The step that the run resumes from; 0 for a new run. */
  resumedFrom: number;
}

/** The result of a `Trainer`. */
export interface TrainResult {
  /** The loss of the last step; null without one. */
  loss: number | null;
  /** The loss of the last evaluation; null without one. */
  evalLoss: number | null;
  /** Completed steps, including those before a resume. */
  steps: number;
  /** Whether `stop()` ended it before its last step. */
  stopped: boolean;
  /** The last step's metrics, if its loss function returned any. */
  metrics?: Readonly<Record<string, number>> | undefined;
  /** The last evaluation's metrics. */
  evalMetrics?: Readonly<Record<string, number>> | undefined;
}

/** Emitted last by a `Trainer`, with the result that `await trainer.result` returns. */
export interface TrainerEndEvent extends TrainResult {
  /** Identifies the event. */
  type: "end";
  /** The duration of the run, including pauses. */
  seconds: number;
}

/** The events of a `Trainer`. */
export type TrainerEvent = TrainerStartEvent | LoopEvent | TrainerEndEvent;
