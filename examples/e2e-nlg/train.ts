/** The paper's recipe: AdamW, a linear schedule with warm-up, label smoothing over the sentence's tokens. */
import { optim, tensor, Trainer, type CausalLM } from "../../src/index.js";
import { epochOrder } from "../../src/data/shuffle.js";
import type { Example } from "./data.js";

export interface Recipe {
  epochs: number;
  batchSize: number;
  lr: number;
  warmup: number;
  seed: number;
}

const SMOOTHING = 0.1;

/** The mean over a row's sentence; smoothed while training, as it is otherwise. */
function loss(model: CausalLM, { ids, labels, trained }: Example) {
  const row = tensor(ids, { shape: [1, ids.length], device: model.device });
  return model.lossSum(row, labels, 1 / trained, model.training ? SMOOTHING : 0);
}

/** A run over the rows, each weighing as many tokens as it trains. */
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
    data: (epoch) => Array.from(epochOrder(rows.length, seed, epoch), (row) => rows[row] as Example),
    weight: (row) => row.trained,
    gradientAccumulation: batchSize,
    steps,
    optimizer: new optim.AdamW(trained, { lr, weightDecay: 0.01 }),
    schedule: optim.schedule.linear({ warmup, total: steps }),
    clipNorm: 0,
    ...(evalData && { evalData }),
  });
}
