/** The options of `finetune`, and their conversion to the library's. */
import { type Command, Option } from "commander";
import { DATA_FORMATS, type DataFormat, TRAIN_ON, type TrainOn } from "../../data/format.js";
import type { BiasMode, InitLoraWeights } from "../../lora/index.js";
import { defaultData, defaultModel } from "../../models/default.js";
import { LOG_FORMATS, type LogFormat } from "../../runs/metrics.js";
import { optionName } from "../../arguments/option-name.js";
import type { MatmulPrecision } from "../../tensor/scope.js";
import { OPEN } from "../../train/changeable.js";
import { OPTIMIZER_DEFAULTS, OPTIMIZER_TYPES, type OptimizerType } from "../../train/optimizer-defaults.js";
import type { FinetuneOptions, ScheduleName, StorageType } from "../../train/options.js";
import { chatTemplateOption } from "../chat-template.js";
import { type CpuFlags, cpuOptions } from "../cpu.js";
import { LANGUAGE } from "../language.js";
import { UsageError } from "../failure.js";
import { hubOptions, MODEL } from "../hub.js";
import type { Quantization } from "../../models/quantization.js";
import { quantizeOption, STORAGE_TYPES } from "../storage.js";
import * as value from "../values.js";
import { PLACES } from "./places.js";

/** Help text about data files. */
export const DATA_FILES =
  "a .txt, .jsonl, .ndjson, .json, .csv or .parquet file, or - for standard input; repeat it for several files";

/** The parsed options. */
export interface Flags extends CpuFlags {
  model?: string | undefined;
  revision?: string | undefined;
  offline?: boolean | undefined;
  data?: string[] | undefined;
  evalData?: string[] | undefined;
  evalSplit?: number | undefined;
  dataFormat?: DataFormat | undefined;
  language?: string | undefined;
  chatTemplate?: string | undefined;
  adapter?: string | undefined;
  output: string;
  rank: number;
  alpha?: number | undefined;
  dropout: number;
  targets: string | string[];
  rslora?: boolean | undefined;
  dora?: boolean | undefined;
  init: InitLoraWeights;
  bias: BiasMode;
  modulesToSave?: string[] | undefined;
  optimizer?: OptimizerType | undefined;
  lr?: number | undefined;
  momentum?: number | undefined;
  loraplusRatio?: number | undefined;
  weightDecay: number;
  schedule: ScheduleName;
  warmup?: number | undefined;
  clipNorm: number;
  steps?: number | undefined;
  epochs?: number | undefined;
  batchSize: number;
  gradAccum: number;
  maxLength?: number | undefined;
  trainOn: TrainOn;
  labelSmoothing: number;
  gradCheckpointing?: boolean | undefined;
  packing?: boolean | undefined;
  evalEvery?: number | undefined;
  saveEvery?: number | string | undefined;
  keep: number;
  patience?: number | undefined;
  resume?: boolean | string | undefined;
  seed: number;
  dtype?: StorageType | undefined;
  quantize?: Quantization | undefined;
  memory?: number | "auto" | undefined;
  matmulPrecision?: MatmulPrecision | undefined;
  device: string;
  profile?: string | undefined;
  log?: LogFormat | undefined;
  dashboard?: boolean | number | undefined;
  config?: string | undefined;
  json?: boolean | undefined;
  yes?: boolean | undefined;
}

/** Declares the options of `finetune` on a command. */
export function declareFlags(command: Command): Command {
  return declareRun(declareTraining(declareAdapter(declareData(command))));
}

function choice(flags: string, text: string, choices: readonly string[]): Option {
  return new Option(flags, text).choices(choices);
}

function declareData(command: Command): Command {
  return hubOptions(command.option("--model <name>", `${MODEL}; default: the embedded one`))
    .option("--data <file>", `training data: ${DATA_FILES}`, value.collect)
    .option(
      "--eval-data <file>",
      "held-out rows in a separate file; repeat it for several files",
      value.collect,
    )
    .option(
      "--eval-split <share>",
      "hold out this fraction of the rows, such as 0.05, selected by the seed",
      value.share,
    )
    .addOption(
      choice("--data-format <format>", "the format of data without a known file extension", DATA_FORMATS),
    )
    .option("--language <name>", LANGUAGE)
    .addOption(chatTemplateOption());
}

function declareAdapter(command: Command): Command {
  return command
    .option(
      "--adapter <folder>",
      "start from this adapter, with its rank, alpha and targets; default for --model: its base model",
    )
    .option("--output <folder>", "the output folder for the adapter", "./lowrank-out")
    .option("--rank <n>", "rank of the adapter", value.count, 16)
    .option("--alpha <n>", "the scaling is alpha / rank; default: twice the rank", value.positive)
    .option("--dropout <share>", "dropout of the adapter's input", value.dropout, 0)
    .option(
      "--targets <names>",
      "layers to adapt: names a,b, all-linear or peft",
      value.targets,
      "all-linear",
    )
    .option("--rslora", "scale by alpha / √rank")
    .option("--dora", "train magnitude and direction separately")
    .option(
      "--init <how>",
      "initialisation: true, false, gaussian, orthogonal, pissa, pissa_niter_N, olora or eva",
      value.init,
      true,
    )
    .addOption(choice("--bias <which>", "biases to train", ["none", "all", "lora_only"]).default("none"))
    .option("--modules-to-save <names>", "modules to train fully: a,b", value.list);
}

function declareTraining(command: Command): Command {
  return command
    .addOption(choice("--optimizer <name>", "the optimizer; default: adamw", OPTIMIZER_TYPES))
    .option(
      "--lr <rate>",
      "learning rate; default: 2e-4, 2e-5 for lion, 1e-2 for sgd and adafactor",
      value.positive,
    )
    .option("--momentum <share>", "momentum of sgd; default: 0.9", value.dropout)
    .option("--loraplus-ratio <n>", "ratio of the learning rates of B and A", value.positive)
    .option("--weight-decay <rate>", "weight decay", value.notNegative, 0.01)
    .addOption(
      choice("--schedule <name>", "schedule of the learning rate", ["linear", "cosine", "constant"]).default(
        "linear",
      ),
    )
    .option("--warmup <n>", "warm-up steps; default: 3% of all steps", value.countFromZero)
    .option("--clip-norm <norm>", "clip gradients to this norm; 0 disables", value.notNegative, 1)
    .option("--steps <n>", "optimizer steps", value.count)
    .option("--epochs <n>", "passes over the data, instead of --steps; default: 1", value.positive)
    .option("--batch-size <n>", "rows per batch", value.count, 1)
    .option("--grad-accum <n>", "batches per optimizer step", value.count, 8)
    .option("--max-length <n>", "maximum tokens per row, limited by the model; default: 512", value.length)
    .addOption(
      choice(
        "--train-on <what>",
        "the trained part of prompt/completion rows and of messages",
        TRAIN_ON,
      ).default("completion"),
    )
    .option("--label-smoothing <share>", "fraction of each label spread over all classes", value.dropout, 0)
    .option("--grad-checkpointing", "gradient checkpointing: less memory, a third more time")
    .option(
      "--packing",
      "pack several rows into sequences of max-length without attention across rows; batches count sequences",
    );
}

function declareRun(command: Command): Command {
  const declared = command
    .option("--eval-every <n>", "steps between evaluations", value.count)
    .option(
      "--save-every <when>",
      "save a checkpoint every n steps, or every 90s, 10m or 1h of training, or never; default: 10m",
      value.saveEvery,
    )
    .option(
      "--keep <n>",
      "number of newest checkpoints to keep, in addition to the best and the last good one",
      value.count,
      3,
    )
    .option(
      "--patience <n>",
      "early stopping: end after n evaluations without a lower held-out loss, and keep the best adapter",
      value.count,
    )
    .option(
      "--resume [folder]",
      "resume a run with its stored options, from the newest checkpoint in an output folder or from a checkpoint folder",
    )
    .option("--seed <n>", "seed of initialisation, row order and dropout", value.countFromZero, 0)
    .addOption(choice("--dtype <type>", "storage of the model's weights", STORAGE_TYPES))
    .addOption(quantizeOption())
    .option(
      "--memory <size>",
      "memory limit of the run, such as 2GB, or auto for the free memory; selects checkpointing, batch size, storage and length to fit",
      value.memory,
    )
    .addOption(
      choice(
        "--matmul-precision <precision>",
        "precision of products with weights: bf16 on the CPU with bf16 weights (the default with --dtype bf16), f16 on a GPU",
        ["exact", "bf16", "f16"],
      ),
    )
    .option("--device <name>", "auto, cpu, gpu or gpu:N", value.device, "auto");
  return cpuOptions(declared)
    .option("--profile <file>", "write a trace for Perfetto, and print a table by operation at the end")
    .addOption(choice("--log <format>", "also log the run's metrics in this format", LOG_FORMATS))
    .option("--dashboard [port]", "serve a page about the run, only on this machine", value.port)
    .option("--config <file>", "read options from a YAML file; the command line overrides them")
    .option("--json", "print one JSON object per event")
    .option("--yes", "replace an earlier run in the output folder once this one has finished");
}

/** Checks combinations of options from the command line and from a file. */
export function checkFlags(flags: Flags): void {
  const name = optionName;
  const both = (a: keyof Flags, b: keyof Flags): void => {
    if (flags[a] !== undefined && flags[b] !== undefined)
      throw new UsageError(`give one of ${name(a)} and ${name(b)}, not both`);
  };
  both("steps", "epochs");
  both("evalData", "evalSplit");
  if (flags.resume !== undefined && flags.yes)
    throw new UsageError(
      `${name("resume")} continues the run that ${name("overwrite")} would replace; give one of them`,
    );
  const [fromInput, heldFromInput] = [flags.data, flags.evalData].map(
    (files) => files?.includes("-") === true,
  );
  if (fromInput && heldFromInput) {
    const what = `${name("data")} and ${name("evalData")} cannot both be standard input`;
    throw new UsageError(`${what}; give ${name("evalSplit")}`);
  }
  // A resumed run has stored options in addition to these.
  if (flags.resume !== undefined) return;
  if ((fromInput || heldFromInput) && flags.dataFormat === undefined) {
    const option = name(fromInput ? "data" : "evalData");
    const formats = DATA_FORMATS.join(", ");
    throw new UsageError(`${option} - has no name to go by: give ${name("dataFormat")}, one of ${formats}`);
  }
  for (const needy of ["model", "adapter"] as const)
    if (flags[needy] !== undefined && flags.data === undefined)
      throw new UsageError(`${name(needy)} needs ${name("data")} FILE to train on`);
  const held = flags.evalData ?? flags.evalSplit;
  if (flags.evalEvery !== undefined && held === undefined)
    throw new UsageError(`${name("evalEvery")} needs ${name("evalData")} or ${name("evalSplit")}`);
  if (flags.patience !== undefined && flags.evalEvery === undefined)
    throw new UsageError(`${name("patience")} counts evaluations: it needs ${name("evalEvery")}`);
}

/** Replaces a list of one file by its name, as run.json stores it. */
function oneOrMany(value: unknown, name: string | undefined): unknown {
  const files = (name === "data" || name === "evalData") && Array.isArray(value);
  return files && value.length === 1 ? value[0] : value;
}

function placed(flags: Partial<Flags>): FinetuneOptions {
  const options: Record<string, unknown> = {};
  for (const [flag, [first, second]] of Object.entries(PLACES)) {
    const value = oneOrMany(flags[flag as keyof Flags], first);
    if (value === undefined || first === undefined) continue;
    if (second === undefined) options[first] = value;
    else options[first] = { ...(options[first] as object | undefined), [second]: value };
  }
  return options as FinetuneOptions;
}

/** Returns the library's options. `open` lists options that the user did not give, which the memory planner may choose. */
export function libraryOptions(flags: Flags, open: readonly string[] = []): FinetuneOptions {
  const lr = flags.lr ?? OPTIMIZER_DEFAULTS[flags.optimizer ?? "adamw"].lr;
  const completed: Flags = { ...flags, lr, data: flags.data ?? [defaultData()] };
  // An adapter to start from has a base model, a rank and an alpha.
  if (flags.adapter === undefined) {
    completed.model ??= defaultModel();
    completed.alpha ??= 2 * flags.rank;
  }
  return Object.assign(placed({ ...completed, ...precision(flags) }), { [OPEN]: open });
}

/** Returns the library's names of flags that the user did not give. */
export function openOptions(command: Command): string[] {
  return Object.entries(PLACES).flatMap(([flag, [name = ""]]) => (isGiven(command, flag) ? [] : [name]));
}

function isGiven(command: Command, flag: string): boolean {
  return !["default", undefined].includes(command.getOptionValueSource(flag));
}

/** Removes the defaults of flags that describe an adapter. */
export function withoutAdapterDefaults(command: Command, flags: Flags): Flags {
  const kept = Object.entries(flags).filter(
    ([flag]) => PLACES[flag as keyof Flags]?.[0] !== "lora" || isGiven(command, flag),
  );
  return Object.fromEntries(kept) as unknown as Flags;
}

/** Returns only options given on the command line or in a file, for a resumed run. */
export function givenOptions(command: Command): FinetuneOptions {
  const flags = command.opts<Flags>();
  const given = Object.entries(flags).filter(([name]) => isGiven(command, name));
  return placed({ ...Object.fromEntries(given), ...precision(flags) });
}

/** Selects bf16 products for bf16 storage, unless another precision is given. */
function precision({ dtype, matmulPrecision }: Flags): Partial<Flags> {
  const asked = matmulPrecision ?? (dtype === "bf16" ? "bf16" : undefined);
  return asked === undefined ? {} : { matmulPrecision: asked };
}
