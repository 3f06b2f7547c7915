/** The options of a `Trainer`, and their checks. */
import { existsSync } from "node:fs";

import { callable, options as checkedOptions, refuse, shown, whole } from "../argument.js";
import { checkCpuUse, type Priority } from "../cpu-use.js";
import { LowrankError } from "../errors.js";
import { isModule, type Module } from "../nn/module.js";
import { Optimizer } from "../optim/optimizer.js";
import type { Schedule } from "../optim/schedule.js";
import { closest } from "../suggest.js";
import type { Stored } from "./trainer-checkpoint.js";
import type { Batches } from "./trainer-data.js";
import type { LossResult } from "./trainer-metrics.js";

/** What `Trainer` takes. */
export interface TrainerOptions<M extends Module, B> {
  /** What is trained; it is in training mode meanwhile, and as it was afterwards. */
  model: M;
  /**
   * Records forward and returns a tensor of one value: the mean loss over the batch. It may return `{ loss, metrics }`
   * instead, where metrics are numbers and tensors of one value by name: `step` and `eval` events carry their means over
   * the batches. It is synchronous.
   */
  loss: (model: M, batch: B) => LossResult;
  /**
   * Batches: an array, an iterable, or a function that gives either for an epoch (from 0), or a promise of it. What
   * can be read only once is enough for one epoch.
   */
  data: Batches<B>;
  /** Over parameters of `model`, and of nothing else: checkpoints hold no other parameters. */
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
   * What checkpoints in `output` store: "all" the model's state dict, "adapter" the tensors in it that the run trains or
   * changes, so that resuming needs the model that the run began with. Any other text is a folder for checkpoints that
   * store all. A function saves as it likes and returns the path, which a `checkpoint` event reports; `write` writes a
   * checkpoint into a folder, "all" by default.
   */
  save?:
    | Stored
    | (string & {})
    | ((step: number, write: (folder: string, stored?: Stored) => Promise<void>) => Promise<string>)
    | undefined;
  /**
   * The folder of checkpoints; `lowrank-out` by default where `save` is "all" or "adapter". `checkpoint-N` after N steps
   * holds the model's tensors, the optimizer's state, random numbers and the position in the data. It is written every
   * ten minutes or `saveEvery` steps, when the run is stopped, and at its end.
   */
  output?: string | undefined;
  /**
   * How many of the run's checkpoints stay in the folder: the newest, and in addition the last one whose loss the next
   * step has checked. All by default.
   */
  keep?: number | undefined;
  /**
   * Steps from one checkpoint to the next, a time such as `"10m"` (`s`, `m` or `h`) that a kill may lose at most, or
   * `"never"`; ten minutes by default.
   */
  saveEvery?: number | "never" | (string & {}) | undefined;
  /**
   * Continues from the newest checkpoint in the folder of checkpoints, or from the given one, as if the run had not ended:
   * `data` gives the same batches again, and those that were used are skipped. The optimizer keeps its options.
   */
  resume?: boolean | string | undefined;
  /**
   * Whether tensors that `data` and `evalData` make and give in batches are disposed once their step has used them:
   * they are, unless the data is an array, or this is false.
   */
  release?: boolean | undefined;
  /** The most threads that compute on the cpu at a time; as `setCpuUse` says unless given. */
  threads?: number | undefined;
  /** `"background"` leaves one core free and lets other programs run first; as `setCpuUse` says unless given. */
  priority?: Priority | undefined;
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
  "output",
  "keep",
  "saveEvery",
  "resume",
  "release",
  "threads",
  "priority",
  "signal",
] as const;

/** The options, each as it should be. Throws `ERR_OPTION`. */
export function checked<M extends Module, B>(given: TrainerOptions<M, B>): TrainerOptions<M, B> {
  const where = "Trainer";
  const options = checkedOptions(where, (given as unknown) ?? {}, OPTIONS as never) as TrainerOptions<M, B>;
  const { model, loss, data, optimizer, weight, schedule, resume, release, evalData } = options;
  if (!isModule(model)) refuse(where, "model", "a module", model);
  callable(where, "loss", loss);
  if (data === undefined || data === null) refuse(where, "data", "batches", data);
  if (!(optimizer instanceof Optimizer))
    refuse(where, "optimizer", "an optimizer, such as optim.AdamW", optimizer);
  checkParameters(model, optimizer);
  if (weight !== undefined) callable(where, "weight", weight);
  if (schedule !== undefined) callable(where, "schedule", schedule);
  if (evalData === null) refuse(where, "evalData", "batches", evalData);
  const { folder } = savingOf(options);
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
    refuse(where, "clipNorm", "a number from 0 on", clipNorm);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    refuse(where, "signal", "an AbortSignal", signal);
  if (options.steps !== undefined && options.epochs !== undefined)
    throw new LowrankError("ERR_OPTION", `${where}: give one of steps and epochs, not both`);
  return options;
}

/** The folder of a run's checkpoints, and their contents. */
export interface Saving {
  /** The folder of checkpoints; undefined where a function saves, or nothing does. */
  folder: string | undefined;
  stored: Stored;
}

const OUTPUT = "lowrank-out";

/** Parses `save`, `output` and `keep`. Throws `ERR_OPTION`. */
export function savingOf<M extends Module, B>(options: TrainerOptions<M, B>): Saving {
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
    whole(where, "keep", keep, 1);
    if (folder === undefined)
      throw new LowrankError(
        "ERR_OPTION",
        `${where}: keep limits the checkpoints in output; give output, or remove checkpoints in save`,
      );
  }
  return { folder, stored };
}

/** Refuses a folder that does not exist and whose name looks like a misspelled "all" or "adapter". */
function checkNoTypo(save: string): void {
  const meant = closest(save, ["all", "adapter"]);
  if (meant === undefined || save === "all" || save === "adapter" || existsSync(save)) return;
  throw new LowrankError(
    "ERR_OPTION",
    `Trainer: save ${shown(save)} is neither "all" nor "adapter" (did you mean "${meant}"?); for a folder of that name give output: ${shown(save)}`,
  );
}

/** Refuses an optimizer over anything but parameters of `model`: the run would not train, or not save, them. */
function checkParameters(model: Module, optimizer: Optimizer): void {
  const own = new Set(model.parameters());
  const trained = optimizer.groups.flatMap(({ params }) => params);
  const foreign = trained.filter((tensor) => !own.has(tensor));
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
