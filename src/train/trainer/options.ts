/** The options of a `Trainer`, and their validation. */
import { existsSync } from "node:fs";

import { checkCallable, checkKnownOptions, refuse, formatValue, checkWhole } from "../../arguments/check.js";
import { checkCpuUse, type Priority } from "../../device/cpu-use.js";
import { LowrankError } from "../../errors.js";
import { isModule, type Module } from "../../nn/module.js";
import { Optimizer } from "../../optim/optimizer.js";
import type { Schedule } from "../../optim/schedule.js";
import { findClosest } from "../../arguments/suggest.js";
import type { Stored } from "./checkpoint.js";
import type { Batches } from "./data.js";
import type { LossResult } from "./metrics.js";

/** The options of `Trainer`. */
export interface TrainerOptions<M extends Module, B> {
  /** The model to train. It is in training mode during the run, and its mode is restored afterwards. */
  model: M;
  /**
   * Records forward synchronously and returns the mean loss over the batch, a tensor of one value. It may also return
   * `{ loss, metrics }`, where metrics are numbers or tensors of one value, by name. `step` and `eval` events report the
   * means of metrics over the batches.
   */
  loss: (model: M, batch: B) => LossResult;
  /**
   * The batches: an array, an iterable, a function that returns either for an epoch (from 0), or a promise of one. An
   * iterable that can be read only once lasts one epoch.
   */
  data: Batches<B>;
  /** The optimizer, over parameters of `model` only: checkpoints store no other parameters. */
  optimizer: Optimizer;
  /** The number of optimizer steps, over as many epochs as needed. An alternative is `epochs`. */
  steps?: number | undefined;
  /** The number of passes over the data; 1, unless `steps` is given. */
  epochs?: number | undefined;
  /** Batches per optimizer step; 1. */
  gradientAccumulation?: number | undefined;
  /** The weight of a batch in the mean of a step or an evaluation, such as its trained tokens; 1. */
  weight?: ((batch: B) => number) | undefined;
  /** The factor on the optimizer's learning rates; 1 throughout by default. */
  schedule?: Schedule | undefined;
  /** Clip gradients to this norm; 1. 0 disables clipping. */
  clipNorm?: number | undefined;
  /** The held-out batches, read for each evaluation: at the start, every `evalEvery` steps, and at the end. */
  evalData?: Batches<B> | undefined;
  /** Steps between evaluations. */
  evalEvery?: number | undefined;
  /**
   * The contents of checkpoints in `output`. "all" stores the model's state dict. "adapter" stores only the tensors that
   * the run trains or changes, so that resuming needs the original model. Any other text is a folder for checkpoints that
   * store all. A function saves by itself and returns the path, which a `checkpoint` event reports; its argument `write`
   * writes a checkpoint into a folder, "all" by default.
   */
  save?:
    | Stored
    | (string & {})
    | ((step: number, write: (folder: string, stored?: Stored) => Promise<void>) => Promise<string>)
    | undefined;
  /**
   * The folder of checkpoints; `lowrank-out` by default if `save` is "all" or "adapter". `checkpoint-N` is saved after N
   * steps with the model's tensors, the optimizer's state, the random state and the position in the data. A checkpoint is
   * saved every ten minutes or `saveEvery` steps, when the run is stopped, and at its end.
   */
  output?: string | undefined;
  /**
   * The number of the run's newest checkpoints to keep, in addition to the last one whose loss the next step has checked.
   * All by default.
   */
  keep?: number | undefined;
  /**
   * The interval between checkpoints: a number of steps; a time such as `"10m"` (`s`, `m` or `h`), the training time that
   * a kill may lose at most; or `"never"`. Ten minutes by default.
   */
  saveEvery?: number | "never" | (string & {}) | undefined;
  /**
   * Continues from the newest checkpoint in the folder of checkpoints, or from the given one, as if the run had not
   * ended. `data` must return the same batches again; those already used are skipped. The optimizer keeps its options.
   */
  resume?: boolean | string | undefined;
  /**
   * Whether to dispose tensors that `data` and `evalData` create for a batch, once the step has used them. True by
   * default; tensors in an array are never disposed.
   */
  release?: boolean | undefined;
  /** The maximum number of threads that compute on the cpu at once; by default as set by `setCpuUse`. */
  threads?: number | undefined;
  /** `"background"` leaves one core free and lets other programs run first; by default as set by `setCpuUse`. */
  priority?: Priority | undefined;
  /** Aborts the run within a step, with the signal's reason. */
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
  "output",
  "keep",
  "saveEvery",
  "resume",
  "release",
  "threads",
  "priority",
  "signal",
] as const;

/** Validates the options. Throws `ERR_OPTION`. */
export function checkTrainerOptions<M extends Module, B>(given: TrainerOptions<M, B>): TrainerOptions<M, B> {
  const where = "Trainer";
  const options = checkKnownOptions(where, (given as unknown) ?? {}, OPTIONS as never) as TrainerOptions<
    M,
    B
  >;
  const { model, loss, data, optimizer, weight, schedule, resume, release, evalData } = options;
  if (!isModule(model)) refuse(where, "model", "a module", model);
  checkCallable(where, "loss", loss);
  if (data === undefined || data === null) refuse(where, "data", "batches", data);
  if (!(optimizer instanceof Optimizer))
    refuse(where, "optimizer", "an optimizer, such as optim.AdamW", optimizer);
  checkParameters(model, optimizer);
  if (weight !== undefined) checkCallable(where, "weight", weight);
  if (schedule !== undefined) checkCallable(where, "schedule", schedule);
  if (evalData === null) refuse(where, "evalData", "batches", evalData);
  const { folder } = parseSaving(options);
  if (resume !== undefined && typeof resume !== "boolean" && (typeof resume !== "string" || resume === ""))
    refuse(where, "resume", "true, false or a folder", resume);
  if (resume === true && folder === undefined)
    throw new LowrankError(
      "ERR_OPTION",
      `${where}: resume: true continues from the newest checkpoint in output; give output, or the checkpoint's folder as resume`,
    );
  if (release !== undefined && typeof release !== "boolean")
    refuse(where, "release", "true or false", release);
  const { clipNorm = 1, signal, threads, priority } = options;
  checkCpuUse(where, { threads, priority });
  if (!(typeof clipNorm === "number" && clipNorm >= 0))
    refuse(where, "clipNorm", "a number of at least 0", clipNorm);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    refuse(where, "signal", "an AbortSignal", signal);
  if (options.steps !== undefined && options.epochs !== undefined)
    throw new LowrankError("ERR_OPTION", `${where}: give one of steps and epochs, not both`);
  return options;
}

/** The folder of a run's checkpoints, and their contents. */
export interface Saving {
  /** The folder of checkpoints; undefined if a function saves, or if nothing is saved. */
  folder: string | undefined;
  stored: Stored;
}

const OUTPUT = "lowrank-out";

/** Parses `save`, `output` and `keep`. Throws `ERR_OPTION`. */
export function parseSaving<M extends Module, B>(options: TrainerOptions<M, B>): Saving {
  const where = "Trainer";
  const { save, output, keep } = options;
  if (save !== undefined && typeof save !== "function" && (typeof save !== "string" || save === ""))
    refuse(where, "save", '"all", "adapter", a folder, or a function that saves', save);
  if (typeof save === "string") checkNoTypo(save);
  if (output !== undefined && (typeof output !== "string" || output === ""))
    refuse(where, "output", "a folder", output);
  const stored = save === "adapter" ? "adapter" : "all";
  const named = save === "all" || save === "adapter";
  if (output !== undefined && save !== undefined && !named)
    throw new LowrankError(
      "ERR_OPTION",
      `${where}: save ${typeof save === "string" ? "names a folder" : "is a function"}, so that output has no effect; give one of them`,
    );
  const folder = output ?? (named ? OUTPUT : typeof save === "string" ? save : undefined);
  if (keep !== undefined) {
    checkWhole(where, "keep", keep, 1);
    if (folder === undefined)
      throw new LowrankError(
        "ERR_OPTION",
        `${where}: keep limits the checkpoints in output; give output, or remove checkpoints in save`,
      );
  }
  return { folder, stored };
}

/** Throws `ERR_OPTION` for a folder that does not exist and whose name looks like a misspelled "all" or "adapter". */
function checkNoTypo(save: string): void {
  const closest = findClosest(save, ["all", "adapter"]);
  if (closest === undefined || save === "all" || save === "adapter" || existsSync(save)) return;
  throw new LowrankError(
    "ERR_OPTION",
    `Trainer: save ${formatValue(save)} is neither "all" nor "adapter" (did you mean "${closest}"?); for a folder of that name give output: ${formatValue(save)}`,
  );
}

/** Throws `ERR_OPTION` for an optimizer over tensors that are not parameters of `model`: checkpoints would omit them. */
function checkParameters(model: Module, optimizer: Optimizer): void {
  const parameters = new Set(model.parameters());
  const trained = optimizer.groups.flatMap(({ params }) => params);
  const foreign = trained.filter((tensor) => !parameters.has(tensor));
  const [first] = foreign;
  if (first === undefined) return;
  const what =
    foreign.length === trained.length ? "no parameter of model" : "parameters that model does not have";
  const shape = first.disposed ? "disposed" : `[${first.shape.join(", ")}]`;
  throw new LowrankError(
    "ERR_OPTION",
    `Trainer: optimizer trains ${what} (${foreign.length} of ${trained.length}, the first ${shape}); make it from model.parameters(), after model.to() and lora.inject, and hold further parameters in a module of the model`,
  );
}
