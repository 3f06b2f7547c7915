/** Training for a model of one's own: any module, any loss, the events of `finetune`. */
import { LowrankError, throwIfAborted } from "../errors.js";
import { session } from "../native.js";
import type { Module } from "../nn/module.js";
import type { Optimizer } from "../optim/optimizer.js";
import { constant, type Schedule } from "../optim/schedule.js";
import { matmulPrecision, noGrad, scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import type { Evaluation } from "./evaluate.js";
import type { FinetuneResult, StartEvent } from "./events.js";
import { runLoop, type StepWork } from "./loop.js";
import { Run, type RunContext } from "./run.js";
import { count, optional } from "./settings.js";

/** Batches, or what gives those of an epoch (from 0). */
export type Batches<B> = Source<B> | ((epoch: number) => Source<B>);
type Source<B> = Iterable<B> | AsyncIterable<B>;

export interface TrainerOptions<M extends Module, B> {
  model: M;
  /** Records forward and gives a tensor of one value: the mean loss over the batch. */
  loss: (model: M, batch: B) => Tensor;
  data: Batches<B>;
  optimizer: Optimizer;
  /** Optimizer steps, over as many epochs as they take; or epochs, 1 unless given. */
  steps?: number;
  epochs?: number;
  /** Batches to an optimizer step; 1 unless given. */
  gradientAccumulation?: number;
  /** What a batch counts as in the mean over a step or an evaluation, such as its trained tokens; 1 unless given. */
  weight?: (batch: B) => number;
  /** Factor of the optimizer's rates; 1 throughout unless given. */
  schedule?: Schedule;
  /** 1; 0 doesn't clip. */
  clipNorm?: number;
  evalData?: Batches<B>;
  evalEvery?: number;
  /** Saves what it likes after `step` steps and gives the path, which a `checkpoint` event tells. */
  save?: (step: number) => Promise<string>;
  saveEvery?: number;
  signal?: AbortSignal;
}

export type TrainResult = Omit<FinetuneResult, "adapter">;

/**
 * A run that trains `model` by `optimizer`: an iterator over its events, `result`, `stop()`. Starts at once. Model and
 * optimizer stay the caller's. An abort leaves no step half done.
 *
 * Errors (they reject `result`): `ERR_OPTION`; `ERR_NOT_FINITE` when a loss or a gradient is not finite, whose update
 * is left out; the signal's reason.
 */
export class Trainer<M extends Module, B> extends Run<TrainResult> {
  constructor(options: TrainerOptions<M, B>) {
    super((context) => train(options, context));
  }
}

async function train<M extends Module, B>(
  options: TrainerOptions<M, B>,
  context: RunContext,
): Promise<TrainResult> {
  const began = performance.now();
  const { model, loss, optimizer, evalData, signal, save, weight = () => 1 } = options;
  throwIfAborted(signal);
  const accumulation = count("gradientAccumulation", options.gradientAccumulation ?? 1, 1);
  const clipNorm = options.clipNorm ?? 1;
  if (!(clipNorm >= 0)) throw new LowrankError("ERR_OPTION", `clipNorm is 0 or more, not ${clipNorm}`);
  if (options.steps !== undefined && options.epochs !== undefined) {
    throw new LowrankError("ERR_OPTION", "give one of steps and epochs, not both");
  }
  const given = optional("steps", options.steps, 1);
  const epochs = given === undefined ? count("epochs", options.epochs ?? 1, 1) : Infinity;
  const perEpoch = Array.isArray(options.data) ? Math.ceil(options.data.length / accumulation) : undefined;
  const steps = given ?? (perEpoch === undefined ? undefined : perEpoch * epochs);
  const groups = stepsOf(options.data, epochs, accumulation);
  const training = model.training;
  try {
    model.train();
    const start = startEvent(model, optimizer, {
      steps: steps ?? 0,
      stepsPerEpoch: perEpoch ?? 0,
      accumulation,
    });
    context.emit(start);
    const result = await runLoop({
      device: start.device as Exclude<Parameters<typeof runLoop>[0]["device"], "auto">,
      optimizer,
      schedule: options.schedule ?? constant(),
      first: 0,
      steps,
      work: async () => {
        const next = await groups.next();
        return next.done === true ? undefined : workOf(next.value, (batch) => loss(model, batch), weight);
      },
      clipNorm: clipNorm === 0 ? undefined : clipNorm,
      evaluate: evalData === undefined ? undefined : (ending) => evaluate(options, evalData, weight, ending),
      evalEvery: optional("evalEvery", options.evalEvery, 1),
      save,
      saveEvery: optional("saveEvery", options.saveEvery, 1),
      signal,
      skips: false,
      context,
    });
    context.emit({ type: "end", adapter: "", ...result, seconds: (performance.now() - began) / 1000 });
    return result;
  } finally {
    model.train(training);
    await groups.return?.(undefined);
  }
}

/** The batches of each step; an epoch's last step takes what is left. */
async function* stepsOf<B>(
  data: Batches<B>,
  epochs: number,
  accumulation: number,
): AsyncGenerator<B[], undefined> {
  for (let epoch = 0; epoch < epochs; epoch++) {
    let batches: B[] = [];
    let any = false;
    for await (const batch of sourceOf(data, epoch)) {
      any = true;
      batches.push(batch);
      if (batches.length < accumulation) continue;
      yield batches;
      batches = [];
    }
    if (batches.length > 0) yield batches;
    if (!any) {
      if (epoch === 0) throw new LowrankError("ERR_OPTION", "the data has no batches");
      throw new LowrankError(
        "ERR_OPTION",
        `the data has no batches for epoch ${epoch + 1}: give an array, or a function that makes them anew`,
      );
    }
  }
  return undefined;
}

function sourceOf<B>(data: Batches<B>, epoch: number): Source<B> {
  return typeof data === "function" ? data(epoch) : data;
}

/** The mean over the step's batches, each by its weight. */
function workOf<B>(batches: B[], loss: (batch: B) => Tensor, weight: (batch: B) => number): StepWork {
  const weights = batches.map(weight);
  const whole = weights.reduce((sum, one) => sum + one, 0);
  if (!(whole > 0))
    throw new LowrankError("ERR_NO_TRAINED_TOKENS", `the batches of a step weigh ${whole} together`);
  const losses = batches.map((batch, i) => () => loss(batch).mul((weights[i] as number) / whole));
  return { losses, tokens: whole, trained: whole };
}

async function evaluate<M extends Module, B>(
  { model, loss }: TrainerOptions<M, B>,
  data: Batches<B>,
  weight: (batch: B) => number,
  signal: AbortSignal,
): Promise<Evaluation> {
  let [sum, weights] = [0, 0];
  model.eval();
  try {
    for await (const batch of sourceOf(data, 0)) {
      throwIfAborted(signal);
      const value = noGrad(() => scope(() => loss(model, batch)));
      try {
        sum += (await value.item()) * weight(batch);
      } finally {
        value.dispose();
      }
      weights += weight(batch);
    }
  } finally {
    model.train();
  }
  const mean = sum / weights;
  return { loss: mean, perplexity: Math.exp(mean), tokens: weights };
}

function startEvent(
  model: Module,
  optimizer: Optimizer,
  { steps, stepsPerEpoch, accumulation }: { steps: number; stepsPerEpoch: number; accumulation: number },
): StartEvent {
  const trained = optimizer.groups.flatMap(({ params }) => params);
  const [first] = trained;
  const device = first?.device ?? "cpu";
  const size = (tensors: Iterable<Tensor>): number =>
    [...tensors].reduce((sum, tensor) => sum + tensor.size, 0);
  return {
    type: "start",
    model: model.constructor.name,
    family: "",
    parameters: size(new Set(Object.values(model.stateDict()))),
    trainable: size(trained),
    adapted: 0,
    targets: [],
    rank: 0,
    alpha: 0,
    device,
    deviceName: session().deviceName(device),
    deviceReason: "the parameters are there",
    dtype: first?.dtype ?? "f32",
    matmulPrecision: matmulPrecision(),
    examples: 0,
    evalExamples: 0,
    tokens: 0,
    steps,
    stepsPerEpoch,
    batchSize: 0,
    gradientAccumulation: accumulation,
    maxLength: 0,
    learningRate: optimizer.groups[0]?.lr ?? 0,
    schedule: "",
    warmup: 0,
    seed: 0,
    output: "",
    resumedFrom: 0,
  };
}
