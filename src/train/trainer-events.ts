/** The events of a `Trainer`. */
import type { MatmulPrecision } from "../scope.js";
import type { LoopEvent } from "./events.js";

/** Once, before the first step of a `Trainer`: what will be done, and where. */
export interface TrainerStartEvent {
  type: "start";
  /** The name of the model's class. */
  model: string;
  /** Values in the model's state, and those of them that the optimizer trains. */
  parameters: number;
  trainable: number;
  /** Which device trains (`cpu`, `gpu:0`): the one that the parameters are on; and what it is called. */
  device: string;
  deviceName: string;
  /** How the trained parameters are stored. */
  dtype: string;
  matmulPrecision: MatmulPrecision;
  /** Optimizer steps of the whole run and of an epoch; null where only the data knows. */
  steps: number | null;
  stepsPerEpoch: number | null;
  gradientAccumulation: number;
  learningRate: number;
  /** The step that the run goes on from; 0 for a new one. */
  resumedFrom: number;
}

/** What a `Trainer` came to. */
export interface TrainResult {
  /** The last step's loss, and the last evaluation's; null when there was none. */
  loss: number | null;
  evalLoss: number | null;
  /** Steps done, those before a resume among them. */
  steps: number;
  /** Whether `stop()` ended it before its last step. */
  stopped: boolean;
}

/** Last of a `Trainer`: what `await trainer.result` gives, too. */
export interface TrainerEndEvent extends TrainResult {
  type: "end";
  seconds: number;
}

/** What a `Trainer` tells of. */
export type TrainerEvent = TrainerStartEvent | LoopEvent | TrainerEndEvent;
