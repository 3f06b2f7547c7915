/** The paper's recipe: AdamW, a linear schedule with warm-up, label smoothing over the sentence's tokens. */
import { optim, tensor, Trainer, type CausalLM } from "lowrank";
import type { Example } from "./data.js";
import { shuffled } from "./shuffle.js";

export interface Recipe {
  epochs: number;
  batchSize: number;
  lr: number;
  warmup: number;
  seed: number;
}

const SMOOTHING = 0.1;

/** The mean loss over a row's sentence, with label smoothing in training only. */
function loss(model: CausalLM, { ids, labels }: Example) {
  const row = tensor(ids, { shape: [1, ids.length], device: model.device });
  return model.loss(row, labels, { labelSmoothing: model.training ? SMOOTHING : 0 });
}

/** Trains on the rows, weighting each by its number of trained tokens. */
export function train(
  model: CausalLM,
  rows: Example[],
  { epochs, batchSize, lr, warmup, seed }: Recipe,
  evalData?: Example[],
): Trainer<CausalLM, Example> {
  const trained = [...model.parameters()].filter((parameter) => parameter.requiresGrad);
  const steps = Math.ceil(rows.length / batchSize) * epochs;
  return new Trainer({
    model,
    loss,
    data: (epoch) => shuffled(rows, seed, epoch),
    weight: (row) => row.trained,
    gradientAccumulation: batchSize,
    steps,
    optimizer: new optim.AdamW(trained, { lr, weightDecay: 0.01 }),
    schedule: optim.schedule.linear({ warmup, total: steps }),
    clipNorm: 0,
    ...(evalData && { evalData }),
  });
}
