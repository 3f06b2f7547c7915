/** Trains any module with any loss function. */
import { randomUUID } from "node:crypto";
import { dirname, join, resolve } from "node:path";

import { refuse } from "../../arguments/check.js";
import type { Device } from "../../device/device.js";
import { LowrankError, throwIfAborted } from "../../errors.js";
import { session } from "../../native/binding.js";
import type { Module } from "../../nn/module.js";
import type { Optimizer } from "../../optim/optimizer.js";
import { constant } from "../../optim/schedule.js";
import { setRandomState } from "../../tensor/random.js";
import { readMatmulPrecision, runWithCheckedCpuUse } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { TrainerEvent, TrainerStartEvent, TrainResult } from "./events.js";
import { runLoop } from "../loop.js";
import { Divergence, type Reference } from "../divergence.js";
import { Run, type RunContext } from "../run.js";
import { DEFAULT_SAVE_EVERY, parseSaveInterval, type SaveInterval } from "../options/save-interval.js";
import { checkCount } from "../options/kinds.js";
import { nameCheckpoint } from "../output/resumable.js";
import { TrainedParts } from "./base.js";
import {
  findTrainerCheckpoint,
  markTrainerCheckpoint,
  pruneTrainerCheckpoints,
  readTrainerCheckpoint,
  writeTrainerCheckpoint,
  type Stored,
  type TrainerProgress,
} from "./checkpoint.js";
import { Reader } from "./data.js";
import { History, recordHistory, type Recording, type TrainerHistory } from "./history.js";
import { checkTrainerOptions, parseSaving, type TrainerOptions } from "./options.js";
import { evaluate, makeStepWork } from "./work.js";

export type { TrainerOptions } from "./options.js";

/**
 * A run that trains `model` with `optimizer`: an iterator over its events, with `result`, `stop()` and `await using`.
 * Starts at once. Model and optimizer remain the caller's. An abort never leaves a step half done.
 *
 * Errors (they reject `result`): `ERR_OPTION`, naming the option; `ERR_NOT_FINITE` for a loss or a gradient that is not
 * finite, without its update; `ERR_WRITE`, `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_UNMATCHED_KEY` and
 * `ERR_SHAPE_MISMATCH` for checkpoints; the signal's reason.
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
  readonly #history: History;

  /** Starts the run; invalid options reject `result`. */
  constructor(options: TrainerOptions<M, B>) {
    const history = new History();
    super((context) => train(options, recordHistory(context, history)));
    this.#history = history;
  }

  /**
   * The figures of the steps and evaluations since this run began, oldest first. Each list has at most 10,000 entries: a
   * longer run lists every second step or evaluation, then every fourth, and so on.
   */
  get history(): TrainerHistory {
    return this.#history.entries;
  }
}

async function train<M extends Module, B>(
  given: TrainerOptions<M, B>,
  recording: Recording,
): Promise<TrainResult> {
  const options = checkTrainerOptions(given);
  const { threads, priority } = options;
  return runWithCheckedCpuUse({ threads, priority }, () => runTraining(options, recording));
}

async function runTraining<M extends Module, B>(
  options: TrainerOptions<M, B>,
  { context, lastMetrics }: Recording,
): Promise<TrainResult> {
  const began = performance.now();
  const { model, optimizer, evalData, signal, save, weight = () => 1 } = options;
  const { folder } = parseSaving(options);
  throwIfAborted(signal);
  const planned = planSteps(options, folder);
  const { total, epochs, accumulation, perEpoch, saveEvery } = planned;
  const reader = new Reader({
    name: "data",
    data: options.data,
    epochs,
    release: options.release ?? true,
    signal,
    stopping: context.stopping,
  });
  const training = model.training;
  try {
    model.train();
    const { first, run, parts, from, notice, good, reference } = await begin(options, planned, reader);
    context.emit(createStartEvent(model, optimizer, { total, perEpoch, accumulation, first }));
    if (notice !== undefined) context.emit({ type: "warning", message: notice });
    const divergence = new Divergence({ reference, steps: total === undefined ? undefined : total - first });
    const write = (folder: string, step: number, stored: Stored): Promise<void> =>
      writeTrainerCheckpoint(
        folder,
        { model, optimizer, parts, stored },
        {
          run,
          step,
          position: reader.position,
          random: reader.random,
          gradientAccumulation: accumulation,
          reference: divergence.reference,
        },
      );
    const saver = new Saver({ options, write, run, from, good, step: first, context });
    const {
      loss,
      evalLoss,
      steps: done,
      stopped,
    } = await runLoop({
      device: findDevice(optimizer),
      optimizer,
      schedule: options.schedule ?? constant(),
      first,
      steps: total,
      work: async () => {
        reader.releaseUsed();
        const batches = await reader.next(accumulation);
        return batches.length === 0 ? undefined : makeStepWork(batches, model, options.loss, weight);
      },
      clipNorm: options.clipNorm === 0 ? undefined : (options.clipNorm ?? 1),
      evaluate:
        evalData === undefined
          ? undefined
          : (ending, between) => evaluate(options, evalData, weight, ending, between),
      evalEvery: checkCount("evalEvery", options.evalEvery),
      save: save === undefined && folder === undefined ? undefined : (step) => saver.save(step),
      saveEvery,
      saved: from === undefined ? undefined : { path: from, unevaluated: false, good },
      checked: (path, good) => saver.recordGood(path, good),
      divergence,
      signal,
      skips: false,
      context,
    });
    const result = { loss, evalLoss, steps: done, stopped, ...lastMetrics() };
    if (folder !== undefined && done !== saver.step)
      context.emit({ type: "checkpoint", step: done, path: await saver.save(done) });
    context.emit({ type: "end", ...result, seconds: (performance.now() - began) / 1000 });
    return result;
  } finally {
    model.train(training);
    reader.close();
  }
}

/** Computes the steps of the training. `total` is undefined where it depends on the data. Throws `ERR_OPTION`. */
function planSteps<M extends Module, B>(options: TrainerOptions<M, B>, folder: string | undefined) {
  const accumulation = checkCount("gradientAccumulation", options.gradientAccumulation ?? 1);
  const steps = checkCount("steps", options.steps);
  const saveEvery = parseSaveEvery(options, folder);
  const epochs = steps === undefined ? checkCount("epochs", options.epochs ?? 1) : Infinity;
  const perEpoch = Array.isArray(options.data) ? Math.ceil(options.data.length / accumulation) : undefined;
  if (perEpoch === 0) throw new LowrankError("ERR_OPTION", "the data has no batches");
  const total = steps ?? (perEpoch === undefined ? undefined : perEpoch * epochs);
  return { total, epochs, accumulation, perEpoch, saveEvery };
}

/** Returns the interval between saves; ten minutes by default with a folder. Throws `ERR_OPTION`. */
function parseSaveEvery<M extends Module, B>(
  { saveEvery }: TrainerOptions<M, B>,
  folder: string | undefined,
): SaveInterval {
  if (saveEvery !== undefined) return parseSaveInterval(saveEvery);
  return folder === undefined ? undefined : parseSaveInterval(DEFAULT_SAVE_EVERY);
}

/** The initial state of a run. */
interface Beginning {
  /** Completed steps. */
  first: number;
  /** The ID of the run in its checkpoints. */
  run: string;
  /** The checkpoint that it continues from. */
  from?: string | undefined;
  /** The newest good checkpoint of the run, up to that one. */
  good?: string | undefined;
  /** Loss and gradient norm before training. */
  reference?: Reference | undefined;
  /** A message for the user. */
  notice?: string | undefined;
  parts: TrainedParts;
}

/** The length of a run, and the batches per step. */
interface Planned {
  total: number | undefined;
  epochs: number;
  accumulation: number;
}

/** Begins a run. If it resumes, restores model, optimizer, random state and data position from the checkpoint. */
async function begin<M extends Module, B>(
  options: TrainerOptions<M, B>,
  planned: Planned,
  reader: Reader<B>,
): Promise<Beginning> {
  const { model, optimizer, resume } = options;
  if (resume === undefined || resume === false)
    return { first: 0, run: randomUUID(), parts: new TrainedParts(model, optimizer) };
  const { path, good, notice } = await findTrainerCheckpoint(
    resume === true ? (parseSaving(options).folder as string) : resume,
  );
  const { step, position, random, names, run, base, reference } = await readTrainerCheckpoint(
    path,
    { model, optimizer },
    (progress) => checkPlan(path, progress, planned),
  );
  await reader.skipTo(position);
  setRandomState(random);
  const continued = base === undefined ? [] : names;
  const parts = new TrainedParts(model, optimizer, continued);
  return { first: step, run: run ?? randomUUID(), parts, from: path, good, notice, reference };
}

/** Throws `ERR_OPTION` for a checkpoint beyond the end of the run, or with another number of batches per step. */
function checkPlan(folder: string, done: TrainerProgress, { total, epochs, accumulation }: Planned): void {
  const { step, position, gradientAccumulation } = done;
  if (gradientAccumulation !== accumulation)
    throw new LowrankError(
      "ERR_OPTION",
      `Trainer: gradientAccumulation is ${accumulation}, and ${folder} was made with ${gradientAccumulation}: its position in the data would not match`,
    );
  const beyond = position.epoch > epochs || (position.epoch === epochs && position.taken > 0);
  if (!beyond && (total === undefined || step <= total)) return;
  const [option, value] = epochs === Infinity ? ["steps", total] : ["epochs", epochs];
  const epoch = epochs === Infinity ? "" : `, in epoch ${position.epoch + 1}`;
  throw new LowrankError(
    "ERR_OPTION",
    `Trainer: ${folder} is after step ${step}${epoch}, and ${option} is ${value}; give more ${option}, or resume from an earlier checkpoint`,
  );
}

/** The options of a `Saver`. */
interface SaverOptions<M extends Module, B> extends Pick<Beginning, "run" | "from" | "good"> {
  options: TrainerOptions<M, B>;
  /** Writes a checkpoint into a folder. */
  write: (folder: string, step: number, stored: Stored) => Promise<void>;
  /** Completed steps when the run begins. */
  step: number;
  context: RunContext<TrainerEvent>;
}

/** Saves a run's checkpoints, and removes old ones according to `keep`. */
class Saver<M extends Module, B> {
  /** The step of the newest checkpoint, or the first step of the run. */
  step: number;
  readonly #options: SaverOptions<M, B>;
  /** The newest good checkpoint; until one is known, the checkpoint that the run continues from. */
  #lastGood: string | undefined;

  constructor(given: SaverOptions<M, B>) {
    this.#options = given;
    this.#lastGood = given.good ?? given.from;
    this.step = given.step;
  }

  /** Saves a checkpoint after `step` steps and returns its path. */
  async save(step: number): Promise<string> {
    const { options, write } = this.#options;
    this.step = step;
    if (typeof options.save === "function")
      return options.save(step, (folder, kind = "all") => write(folder, step, checkStored(kind)));
    const { folder, stored } = parseSaving(options);
    const path = join(folder as string, nameCheckpoint(step));
    await write(path, step, stored);
    await this.#prune();
    return path;
  }

  /** Records, also in the checkpoint itself, whether its weights are good. */
  async recordGood(path: string, good: boolean): Promise<void> {
    if (good) this.#lastGood = path;
    const { options, from } = this.#options;
    // A checkpoint in another folder belongs to another run.
    const isOwn = path !== from || dirname(resolve(path)) === resolve(parseSaving(options).folder ?? "");
    if (isOwn) await markTrainerCheckpoint(path, good);
    await this.#prune();
  }

  /** Removes old checkpoints. A failed removal does not end the run. */
  async #prune(): Promise<void> {
    const { options, run, context } = this.#options;
    const { keep } = options;
    if (keep === undefined) return;
    const folder = parseSaving(options).folder as string;
    try {
      await pruneTrainerCheckpoints(folder, run, { keep, good: this.#lastGood });
    } catch (error) {
      context.emit({
        type: "warning",
        message: `old checkpoints in ${folder} could not be removed: ${(error as Error).message}`,
      });
    }
  }
}

function checkStored(kind: unknown): Stored {
  return kind === "all" || kind === "adapter"
    ? kind
    : refuse("Trainer: save", "stored", '"all" or "adapter"', kind);
}

/** Returns the device of the optimizer's parameters. */
function findDevice(optimizer: Optimizer): Exclude<Device, "auto"> {
  return optimizer.groups[0]?.params[0]?.device ?? "cpu";
}

function createStartEvent(
  model: Module,
  optimizer: Optimizer,
  plan: { total: number | undefined; perEpoch: number | undefined; accumulation: number; first: number },
): TrainerStartEvent {
  const trained = optimizer.groups.flatMap(({ params }) => params);
  const device = findDevice(optimizer);
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
    matmulPrecision: readMatmulPrecision(),
    steps: plan.total ?? null,
    stepsPerEpoch: plan.perEpoch ?? null,
    gradientAccumulation: plan.accumulation,
    learningRate: optimizer.groups[0]?.lr ?? 0,
    resumedFrom: plan.first,
  };
}
