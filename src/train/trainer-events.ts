/** The events of a `Trainer`. */
import type { MatmulPrecision } from "../scope.js";
import type { LoopEvent } from "./events.js";

/** Once, before the first step of a `Trainer`: what will be done, and where. */
export interface TrainerStartEvent {
  /** Tells it from the other events. */
  type: "start";
  /** The name of the model's class. */
  model: string;
  /** Values in the model's state. */
  parameters: number;
  /** Those of them that the optimizer trains. */
  trainable: number;
  /** Which device trains (`cpu`, `gpu:0`): the one that the parameters are on. */
  device: string;
  /** What it is called. */
  deviceName: string;
  /** How the trained parameters are stored. */
  dtype: string;
  /** How products by bf16 weights are computed. */
  matmulPrecision: MatmulPrecision;
  /** Optimizer steps of the whole run; null where only the data knows. */
  steps: number | null;
  /** Those of an epoch; null where only the data knows. */
  stepsPerEpoch: number | null;
  /** Batches to an optimizer step. */
  gradientAccumulation: number;
  /** The first group's rate, before the schedule. */
  learningRate: number;
  /** The step that the run goes on from; 0 for a new one. */
  resumedFrom: number;
}

/** What a `Trainer` came to. */
export interface TrainResult {
  /** The last step's loss; null when there was none. */
  loss: number | null;
  /** The last evaluation's; null when there was none. */
  evalLoss: number | null;
  /** Steps done, those before a resume among them. */
  steps: number;
  /** Whether `stop()` ended it before its last step. */
  stopped: boolean;
  /** The last step's metrics, if its loss function returned any. */
  metrics?: Readonly<Record<string, number>> | undefined;
  /** The last evaluation's metrics. */
  evalMetrics?: Readonly<Record<string, number>> | undefined;
}

/** Last of a `Trainer`: what `await trainer.result` gives, too. */
export interface TrainerEndEvent extends TrainResult {
  /** Tells it from the other events. */
  type: "end";
  /** How long the run took, pauses included. */
  seconds: number;
}

/** What a `Trainer` tells of. */
export type TrainerEvent = TrainerStartEvent | LoopEvent | TrainerEndEvent;
