/** Training for a model of one's own: any module, any loss. */
import { join } from "node:path";

import { callable, options as checkedOptions, refuse } from "../argument.js";
import type { Device } from "../device.js";
import { LowrankError, throwIfAborted } from "../errors.js";
import { session } from "../native.js";
import { isModule, type Module } from "../nn/module.js";
import { Optimizer } from "../optim/optimizer.js";
import { constant, type Schedule } from "../optim/schedule.js";
import { setRandomState } from "../random.js";
import { matmulPrecision, noGrad, scope } from "../scope.js";
import { isTensor, type Tensor } from "../tensor.js";
import type { Evaluation } from "./evaluate.js";
import type { TrainerEvent, TrainerStartEvent, TrainResult } from "./trainer-events.js";
import { runLoop, type StepWork } from "./loop.js";
import { Run, type RunContext } from "./run.js";
import { count, optional } from "./settings.js";
import {
  findTrainerCheckpoint,
  readTrainerCheckpoint,
  writeTrainerCheckpoint,
} from "./trainer-checkpoint.js";
import { Reader, type Batches } from "./trainer-data.js";

/** What `Trainer` takes. */
export interface TrainerOptions<M extends Module, B> {
  /** What is trained; it is in training mode meanwhile, and as it was afterwards. */
  model: M;
  /** Records forward and gives a tensor of one value: the mean loss over the batch. It is synchronous. */
  loss: (model: M, batch: B) => Tensor;
  /**
   * Batches: an array, an iterable, or a function that gives either for an epoch (from 0), or a promise of it. What
   * can be read only once is enough for one epoch.
   */
  data: Batches<B>;
  /** Over parameters of `model`. */
  optimizer: Optimizer;
  /** Optimizer steps, over as many epochs as they take; or epochs, 1 unless given. */
  steps?: number | undefined;
  /** How often the data is gone through; 1 unless given. */
  epochs?: number | undefined;
  /** Batches to an optimizer step; 1 unless given. */
  gradientAccumulation?: number | undefined;
  /** What a batch counts as in the mean over a step or an evaluation, such as its trained tokens; 1 unless given. */
  weight?: ((batch: B) => number) | undefined;
  /** Factor of the optimizer's rates; 1 throughout unless given. */
  schedule?: Schedule | undefined;
  /** 1; 0 doesn't clip. */
  clipNorm?: number | undefined;
  /** Held-out batches, read anew for each evaluation: at the start, every `evalEvery` steps, and at the end. */
  evalData?: Batches<B> | undefined;
  /** Steps from one evaluation to the next. */
  evalEvery?: number | undefined;
  /**
   * A folder for checkpoints: `checkpoint-N` after N steps, with the model's state dict, the optimizer's state, random
   * numbers and the place in the data, written every `saveEvery` steps, when the run is stopped, and at its end. All
   * are kept. Or a function that saves what it likes and gives the path, which a `checkpoint` event tells; `write`
   * writes such a checkpoint into a folder.
   */
  save?: string | ((step: number, write: (folder: string) => Promise<void>) => Promise<string>) | undefined;
  /** Steps from one checkpoint to the next. */
  saveEvery?: number | undefined;
  /**
   * Goes on from the newest checkpoint in `save`, or from the folder given, as if the run had not ended: `data` gives
   * the same batches again, of which those that were used are left out. The optimizer's options are its own.
   */
  resume?: boolean | string | undefined;
  /**
   * Whether tensors that `data` and `evalData` make and give in batches are disposed once their step has used them:
   * they are, unless the data is an array, or this is false.
   */
  release?: boolean | undefined;
  /** Ends the run within a step, with its reason. */
  signal?: AbortSignal | undefined;
}

const OPTIONS = [
  "model",
  "loss",
  "data",
  "optimizer",
  "steps",
  "epochs",
  "gradientAccumulation",
  "weight",
  "schedule",
  "clipNorm",
  "evalData",
  "evalEvery",
  "save",
  "saveEvery",
  "resume",
  "release",
  "signal",
] as const;

/**
 * A run that trains `model` by `optimizer`: an iterator over its events, `result`, `stop()`, and `await using`. Starts
 * at once. Model and optimizer stay the caller's. An abort leaves no step half done.
 *
 * Errors (they reject `result`): `ERR_OPTION`, naming the option; `ERR_NOT_FINITE` when a loss or a gradient is not
 * finite, whose update is left out; `ERR_WRITE`, `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_UNMATCHED_KEY`,
 * `ERR_SHAPE_MISMATCH` of checkpoints; the signal's reason.
 *
 * @example
 * const trainer = new Trainer({
 *   model,
 *   optimizer: new optim.AdamW(model.parameters(), { lr: 1e-3 }),
 *   data: function* () { for (const [x, y] of rows) yield { x: tensor(x), y: tensor(y) }; },
 *   loss: (model, { x, y }) => nn.mseLoss(model.forward(x), y),
 *   epochs: 3,
 * });
 * for await (const event of trainer) if (event.type === "step") console.log(event.loss);
 */
export class Trainer<M extends Module, B> extends Run<TrainResult, TrainerEvent> {
  /** Begins the run; what is wrong with the options rejects `result`. */
  constructor(options: TrainerOptions<M, B>) {
    super((context) => train(options, context));
  }
}

async function train<M extends Module, B>(
  given: TrainerOptions<M, B>,
  context: RunContext<TrainerEvent>,
): Promise<TrainResult> {
  const began = performance.now();
  const options = checked(given);
  const { model, optimizer, evalData, signal, save, weight = () => 1 } = options;
  throwIfAborted(signal);
  const accumulation = count("gradientAccumulation", options.gradientAccumulation ?? 1, 1);
  const steps = optional("steps", options.steps, 1);
  const saveEvery = optional("saveEvery", options.saveEvery, 1);
  const epochs = steps === undefined ? count("epochs", options.epochs ?? 1, 1) : Infinity;
  const perEpoch = Array.isArray(options.data) ? Math.ceil(options.data.length / accumulation) : undefined;
  if (perEpoch === 0) throw new LowrankError("ERR_OPTION", "the data has no batches");
  const total = steps ?? (perEpoch === undefined ? undefined : perEpoch * epochs);
  const { stopping } = context;
  const reader = new Reader({
    name: "data",
    data: options.data,
    epochs,
    release: options.release ?? true,
    signal,
    stopping,
  });
  const training = model.training;
  try {
    model.train();
    const first = await begin(options, accumulation, reader);
    context.emit(startEvent(model, optimizer, { total, perEpoch, accumulation, first }));
    const write = (folder: string, step: number): Promise<void> =>
      writeTrainerCheckpoint(
        folder,
        { model, optimizer },
        { step, position: reader.position, random: reader.random, gradientAccumulation: accumulation },
      );
    let saved = first;
    const saving = async (step: number): Promise<string> => {
      saved = step;
      if (typeof save === "function") return save(step, (folder) => write(folder, step));
      const folder = join(save as string, `checkpoint-${step}`);
      await write(folder, step);
      return folder;
    };
    const {
      loss,
      evalLoss,
      steps: done,
      stopped,
    } = await runLoop({
      device: deviceOf(optimizer),
      optimizer,
      schedule: options.schedule ?? constant(),
      first,
      steps: total,
      work: async () => {
        reader.releaseUsed();
        const batches = await reader.next(accumulation);
        return batches.length === 0 ? undefined : workOf(batches, model, options.loss, weight);
      },
      clipNorm: options.clipNorm === 0 ? undefined : (options.clipNorm ?? 1),
      evaluate: evalData === undefined ? undefined : (ending) => evaluate(options, evalData, weight, ending),
      evalEvery: optional("evalEvery", options.evalEvery, 1),
      save: save === undefined ? undefined : saving,
      saveEvery: saveEvery === undefined ? undefined : { steps: saveEvery },
      signal,
      skips: false,
      context,
    });
    const result = { loss, evalLoss, steps: done, stopped };
    if (typeof save === "string" && done !== saved)
      context.emit({ type: "checkpoint", step: done, path: await saving(done) });
    context.emit({ type: "end", ...result, seconds: (performance.now() - began) / 1000 });
    return result;
  } finally {
    model.train(training);
    reader.close();
  }
}

/** The options, each as it should be. Throws `ERR_OPTION`. */
function checked<M extends Module, B>(given: TrainerOptions<M, B>): TrainerOptions<M, B> {
  const where = "Trainer";
  const options = checkedOptions(where, (given as unknown) ?? {}, OPTIONS as never) as TrainerOptions<M, B>;
  const { model, loss, data, optimizer, weight, schedule, save, resume, release, evalData } = options;
  if (!isModule(model)) refuse(where, "model", "a module", model);
  callable(where, "loss", loss);
  if (data === undefined || data === null) refuse(where, "data", "batches", data);
  if (!(optimizer instanceof Optimizer))
    refuse(where, "optimizer", "an optimizer, such as optim.AdamW", optimizer);
  if (weight !== undefined) callable(where, "weight", weight);
  if (schedule !== undefined) callable(where, "schedule", schedule);
  if (evalData === null) refuse(where, "evalData", "batches", evalData);
  if (save !== undefined && typeof save !== "function" && (typeof save !== "string" || save === ""))
    refuse(where, "save", "a folder, or a function that saves", save);
  if (resume !== undefined && typeof resume !== "boolean" && (typeof resume !== "string" || resume === ""))
    refuse(where, "resume", "true, false or a folder", resume);
  if (resume === true && typeof save !== "string")
    throw new LowrankError(
      "ERR_OPTION",
      `${where}: resume: true takes the newest checkpoint of the folder that save names`,
    );
  if (release !== undefined && typeof release !== "boolean")
    refuse(where, "release", "true or false", release);
  const { clipNorm = 1, signal } = options;
  if (!(typeof clipNorm === "number" && clipNorm >= 0))
    refuse(where, "clipNorm", "a number from 0 on", clipNorm);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    refuse(where, "signal", "an AbortSignal", signal);
  if (options.steps !== undefined && options.epochs !== undefined)
    throw new LowrankError("ERR_OPTION", `${where}: give one of steps and epochs, not both`);
  return options;
}

/** The step to begin with; model, optimizer, random numbers and data are where a checkpoint says. */
async function begin<M extends Module, B>(
  { model, optimizer, save, resume }: TrainerOptions<M, B>,
  accumulation: number,
  reader: Reader<B>,
): Promise<number> {
  if (resume === undefined || resume === false) return 0;
  const folder = await findTrainerCheckpoint(resume === true ? (save as string) : resume);
  const { step, position, random, gradientAccumulation } = await readTrainerCheckpoint(folder, {
    model,
    optimizer,
  });
  if (gradientAccumulation !== accumulation) {
    throw new LowrankError(
      "ERR_OPTION",
      `Trainer: gradientAccumulation is ${accumulation}, and ${folder} was made with ${gradientAccumulation}: its place in the data is another`,
    );
  }
  await reader.skipTo(position);
  setRandomState(random);
  return step;
}

/** The mean over the step's batches, each by its weight. */
function workOf<M extends Module, B>(
  batches: B[],
  model: M,
  loss: (model: M, batch: B) => Tensor,
  weight: (batch: B) => number,
): StepWork {
  const weights = batches.map((batch) => weightOf(weight, batch));
  const whole = weights.reduce((sum, one) => sum + one, 0);
  if (!(whole > 0))
    throw new LowrankError("ERR_NO_TRAINED_TOKENS", `the batches of a step weigh ${whole} together`);
  const losses = batches.map(
    (batch, i) => () => lossOf(model, batch, loss).mul((weights[i] as number) / whole),
  );
  return { losses, tokens: whole, trained: whole };
}

function weightOf<B>(weight: (batch: B) => number, batch: B): number {
  const value: unknown = weight(batch);
  if (typeof value === "number" && value >= 0 && Number.isFinite(value)) return value;
  return refuse("Trainer", "weight", "a function that gives a number from 0 on", value);
}

/** The loss of a batch, which is a tensor of one value. */
function lossOf<M extends Module, B>(model: M, batch: B, loss: (model: M, batch: B) => Tensor): Tensor {
  const value: unknown = loss(model, batch);
  if (value instanceof Promise) {
    value.catch(() => {});
    throw new LowrankError(
      "ERR_OPTION",
      "Trainer: loss gave a promise, and is synchronous: await what a batch needs in data",
    );
  }
  if (!isTensor(value)) return refuse("Trainer", "loss", "a function that gives a tensor", value);
  if (value.size === 1) return value;
  throw new LowrankError(
    "ERR_SHAPE_MISMATCH",
    `Trainer: loss gave a tensor of shape [${value.shape.join(", ")}], and gives one value: the mean over the batch`,
  );
}

async function evaluate<M extends Module, B>(
  { model, loss, release = true }: TrainerOptions<M, B>,
  data: Batches<B>,
  weight: (batch: B) => number,
  signal: AbortSignal,
): Promise<Evaluation> {
  let [sum, weights, batches] = [0, 0, 0];
  const reader = new Reader({ name: "evalData", data, epochs: 1, release, signal });
  model.eval();
  try {
    for (let taken = await reader.next(1); taken.length > 0; taken = await reader.next(1)) {
      throwIfAborted(signal);
      const [batch] = taken as [B];
      const share = weightOf(weight, batch);
      const value = noGrad(() => scope(() => lossOf(model, batch, loss)));
      reader.releaseUsed();
      try {
        sum += (await value.item()) * share;
      } finally {
        value.dispose();
      }
      weights += share;
      batches++;
      if (Number.isFinite(sum)) continue;
      throw new LowrankError(
        "ERR_NOT_FINITE",
        `Trainer: the loss of batch ${batches} of evalData is not finite`,
      );
    }
  } finally {
    model.train();
    reader.close();
  }
  if (!(weights > 0))
    throw new LowrankError("ERR_NO_TRAINED_TOKENS", `the batches of evalData weigh ${weights} together`);
  const mean = sum / weights;
  return { loss: mean, perplexity: Math.exp(mean), tokens: weights };
}

/** Where the optimizer's parameters are. */
function deviceOf(optimizer: Optimizer): Exclude<Device, "auto"> {
  return optimizer.groups[0]?.params[0]?.device ?? "cpu";
}

function startEvent(
  model: Module,
  optimizer: Optimizer,
  plan: { total: number | undefined; perEpoch: number | undefined; accumulation: number; first: number },
): TrainerStartEvent {
  const trained = optimizer.groups.flatMap(({ params }) => params);
  const device = deviceOf(optimizer);
  const size = (tensors: Iterable<Tensor>): number =>
    [...tensors].reduce((sum, tensor) => sum + tensor.size, 0);
  return {
    type: "start",
    model: model.constructor.name,
    parameters: size(new Set(Object.values(model.stateDict()))),
    trainable: size(trained),
    device,
    deviceName: session().deviceName(device),
    dtype: trained[0]?.dtype ?? "f32",
    matmulPrecision: matmulPrecision(),
    steps: plan.total ?? null,
    stepsPerEpoch: plan.perEpoch ?? null,
    gradientAccumulation: plan.accumulation,
    learningRate: optimizer.groups[0]?.lr ?? 0,
    resumedFrom: plan.first,
  };
}
